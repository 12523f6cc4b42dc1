"""UEM: the spans that are scored, in the variants that people's files have."""

import pytest

from spk.common.errors import InputError
from spk.manifests.formats.uem import read_uem, write_uem


def write(folder, text):
    (folder / "a.uem").write_text(text)
    return folder / "a.uem"


def test_spans_are_read_in_order_with_comments_and_any_channel(tmp_path):
    text = ";; NIST\n; dscore\n\nS_1-a 1 0 15\nS2\tNA  4.5 1113.845375\nS_1-a 1 15 30.4"
    assert read_uem(write(tmp_path, text)) == {
        "S_1-a": [(0.0, 15.0), (15.0, 30.4)],
        "S2": [(4.5, 1113.845375)],
    }


def test_a_session_that_is_not_listed_is_absent(tmp_path):
    assert read_uem(write(tmp_path, ";; nothing\n")) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S1 1 0\n", "a.uem, line 1: has 3 fields, expected session, channel, start and end"),
        ("S1 1 0 1\nS1 1 5 5\n", "line 2: span is 5 to 5 s, expected 0 <= start < end"),
        ("S1 1 -1 5\n", "line 1: span is -1 to 5 s"),
        ("S1 1 x 5\n", "line 1: start is 'x', expected a finite number"),
        ("../S 1 0 5\n", "line 1: session is '../S', expected a plain name"),
        ("SPEAKER S1 1 0 1 <NA> <NA> A <NA>\n", "a.uem: is an RTTM, expected a UEM"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_uem(write(tmp_path, text))


def test_what_is_written_is_read_as_it_was(tmp_path):
    spans = {"S2": [(0.0, 1.5), (3.25, 4.0)], "会议": [(0.123456, 9.0)], "S 1": [(1.0, 2.0)]}
    write_uem(spans, tmp_path / "b.uem")
    text = (tmp_path / "b.uem").read_text(encoding="utf-8")
    assert text == (
        "S2 1 0.000 1.500\nS2 1 3.250 4.000\nS_1 1 1.000 2.000\n会议 1 0.123456 9.000\n"
    )
    assert read_uem(tmp_path / "b.uem") == {
        "S_1": [(1.0, 2.0)],
        "S2": [(0.0, 1.5), (3.25, 4.0)],
        "会议": [(0.123456, 9.0)],
    }


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ({"S 1": [(0, 1)], "S_1": [(0, 1)]}, "sessions 'S 1' and 'S_1' would both be written as"),
        ({"S1": [(1, 1)]}, "S1: span is 1 to 1 s, expected 0 <= start < end"),
        ({"<NA>": [(0, 1)]}, "session is '<NA>', expected a name, not a placeholder"),
    ],
)
def test_spans_that_no_uem_holds_are_refused(tmp_path, spans, message):
    with pytest.raises(InputError, match=message):
        write_uem(spans, tmp_path / "b.uem")
