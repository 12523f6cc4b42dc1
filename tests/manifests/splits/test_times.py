"""Cut files take every split: times come back from the table that was cut, or from RTTMs."""

import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from spk.common.errors import InputError
from spk.manifests.cli import main
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.splits.split import METHODS, split_table
from spk.manifests.splits.times import with_times
from spk.manifests.table import read_table, segment_id, write_table

MEETING = "20990101_S_R001S01C01"


@pytest.fixture(scope="module")
def whole(real_data):
    """Return three real meetings' turns of 1.5 s and more; speakers are those of the series."""
    table = make_table(read_rttm(real_data / "meetings/TextGrid"), scope="series")
    table = table[table["session"].str.startswith("20990101")]
    return table[table["end"] - table["start"] >= 1.5].reset_index(drop=True)


@pytest.fixture(scope="module")
def cut(whole):
    """Return the table that `spk-manifests cut` writes of it: a file per segment, from 0 s."""
    files = [f"{name}.flac" for name in whole["segment_id"]]
    return whole.assign(audio=files, start=0.0, end=whole["end"] - whole["start"])


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_splits_cut_files_as_it_does_the_meetings(method, whole, cut, tmp_path):
    options = ["--session", MEETING] if method == "leave-one-session-out" else []
    for name, table in (("whole", whole), ("cut", cut)):
        write_table(table, tmp_path / f"{name}.csv")
    words = ["split", tmp_path / "cut.csv", tmp_path / "out.csv", "--method", method, *options]
    done = invoke(*words, "--times", tmp_path / "whole.csv")
    assert done.exit_code == 0, done.output
    divided = read_table(tmp_path / "out.csv")
    given = {"session": MEETING} if options else {}
    expected = split_table(whole, method, **given)
    pd.testing.assert_series_equal(divided["split"], expected["split"], check_dtype=False)
    pd.testing.assert_frame_equal(divided[list(cut)], read_table(tmp_path / "cut.csv"))
    there, back = (
        invoke("leaks", tmp_path / "out.csv", "--times", tmp_path / "whole.csv"),
        invoke("leaks", tmp_path / "out.csv"),
    )
    assert there.exit_code == 0, there.output
    assert "--times" in back.output


def test_rttms_say_when_by_session_and_line(whole, cut, real_data):
    """Files of the reference's CSV have ids of their own, and the number of their line."""
    ids = [
        segment_id(s, n, 0.0, e)
        for s, n, e in zip(cut["session"], cut["speaker"], cut["end"], strict=True)
    ]
    own = cut.assign(segment_id=[f"{name}-{k}" for k, name in enumerate(ids)])
    turns = make_table(read_rttm(real_data / "meetings/TextGrid"))
    timed = with_times(own.sample(frac=1, random_state=0), turns).sort_index()
    np.testing.assert_array_equal(timed[["start", "end"]], whole[["start", "end"]])
    assert (timed["audio"] == whole["audio"]).all()
    assert list(timed["segment_id"]) == list(own["segment_id"])


@pytest.mark.parametrize("method", ["leave-one-session-out", "random"])
def test_two_methods_need_no_times(method, whole, cut):
    given = {"session": MEETING, "valid_share": 0.2} if method != "random" else {}
    made = split_table(cut, method, **given)
    record = made.attrs["split"]
    assert record["counts"]["purged"] == record["purged"].get("unknown speaker", 0)
    assert record["counts"]["test"] > 20
    if method != "random":
        assert (made["session"][made["split"] == "test"] == MEETING).all()
        valid = made[made["split"] == "valid"]
        before = made[(made["split"] == "train") & (made["session"] == valid["session"].iloc[0])]
        one = valid["speaker"].iloc[0]
        last = valid["line"][valid["speaker"] == one].groupby(valid["session"]).min()
        first = before["line"][before["speaker"] == one].max()
        assert first < last.iloc[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.iloc[1:], r"times: 1 of \d+ segments has no times, first '2099"),
        (lambda t: t.assign(end=t["end"] + 0.2), "segments have another length there, first"),
        (lambda t: t.assign(segment_id=t["segment_id"] + "x").drop(columns="line"), "'line' is"),
    ],
)
def test_times_of_other_segments_are_refused(whole, cut, change, expected):
    with pytest.raises(InputError, match=expected) as told:
        with_times(cut, change(whole))
    assert re.search("; pass the table that was cut, or its RTTMs$", str(told.value))
