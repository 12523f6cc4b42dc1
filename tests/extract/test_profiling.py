"""Where the time of a run went."""

import json
import threading
from contextvars import copy_context

import pytest

from spk.extract.profiling import Profile, TimedStage, recording, stage


@pytest.fixture
def spans():
    """Return 10 s of layers with 3 s of pooling inside, beside 4 s of decode."""
    found = Profile()
    found.stages = [
        TimedStage("pooling", "main", 2.0, 4.0),
        TimedStage("pooling", "main", 7.0, 8.0),
        TimedStage("layers", "main", 0.0, 10.0),
        TimedStage("decode", "decode_0", 1.0, 5.0),
        TimedStage("CNN", "main", 10.0, 11.0),
    ]
    return found


def test_a_stage_counts_without_the_stages_inside_it(spans):
    assert spans.seconds() == {
        ("main", "layers"): 7.0,
        ("main", "pooling"): 3.0,
        ("main", "CNN"): 1.0,
        ("decode_0", "decode"): 4.0,
    }


def test_shares_are_of_all_stages_together(spans):
    shares = spans.shares()
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["decode"] == pytest.approx(4 / 15)
    assert shares["writing"] == 0.0


def test_the_page_names_the_busiest_row(spans):
    page = spans.page({"audio": "90 s"})
    assert page.startswith("audio: 90 s\n")
    assert "busiest row: main, 100.0% of 11.00 s" in page


def test_the_trace_is_one_chrome_reads(spans):
    events = json.loads(spans.trace())["traceEvents"]
    rows = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    layers = next(e for e in events if e["name"] == "layers")
    assert (rows[layers["tid"]], layers["ts"], layers["dur"]) == ("main", 0.0, 1e7)


def test_threads_have_rows_of_their_own_and_nothing_is_measured_without_spans():
    spans = Profile()

    def work():
        with stage("decode"):
            pass

    with recording(spans):
        thread = threading.Thread(target=copy_context().run, args=(work,), name="decode_7")
        thread.start()
        thread.join()
    work()
    assert [(span.row, span.stage) for span in spans.stages] == [("decode_7", "decode")]


def test_a_stage_that_fails_is_measured_too():
    spans = Profile()
    with pytest.raises(ValueError, match="soon"), spans.stage("CNN"):
        raise ValueError("soon")
    assert [span.stage for span in spans.stages] == ["CNN"]
