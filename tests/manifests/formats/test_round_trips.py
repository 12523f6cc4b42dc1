"""What is written in a format is read as it was: names to the letter, times to its precision."""

import unicodedata

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spk.common.errors import InputError
from spk.common.names import normal_name
from spk.manifests.formats.registry import FORMATS, read_turns, write_turns

FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LONG = "".join(chr(0x4E00 + 37 * n % 20000) for n in range(80))
SPEAKERS = [
    *("A", "A_1", "A_1_2", "1", "001", "001-M", "_x", "王小明", "Jörg", "Zoë é", LONG),
    *("Anna Lee", "Anna Lee 2", "O'Neil & Søn", "<b>", 'say "x"', "NA", "[x]", "a:b", "x, y; z"),
]
SESSIONS = ["S1", "S1_2", "S1 A", "7", "a.b", "会议", LONG[::-1]]
TEXTS = ["", "hello", "你好, 世界", 'a "b" & <c>', "x: y --> z", "[no]: 1", "NA"]
PRECISION = {  # s; half of the last place that a format writes, or what adding costs
    "rttm": 1e-6,
    "whisperx": 0.0,
    "seglst": 0.0,
    "textgrid": 0.0,
    "srt": 0.0005,
    "vtt": 0.0005,
    "txt": 0.0005,
    "eaf": 0.0005,
    "lhotse": 1e-8,
    "nemo": 1e-8,
    "kaldi": 1e-6,
    "csv": 0.0,
}
UNDERSCORED = ("rttm", "kaldi")
TEXTLESS = ("rttm",)
MARKED = {
    "srt": "markup",
    "textgrid": "speech",
}  # formats in which a text is not kept to the letter
TIMES = st.floats(0, 90000, allow_subnormal=False).map(lambda time: round(time, 7))


def identity(turn):
    return (*turn[:2], round(turn[2], 2))


TURNS = st.lists(
    st.tuples(
        st.sampled_from(SESSIONS),
        st.sampled_from(SPEAKERS),
        TIMES,
        st.floats(0.002, 60),
        st.sampled_from(TEXTS),
        st.sampled_from(["NFC", "NFD"]),
    ),
    min_size=1,
    max_size=6,
    unique_by=identity,
)


def table_of(turns):
    rows = [
        (unicodedata.normalize(form, s), unicodedata.normalize(form, p), t, t + seconds, text)
        for s, p, t, seconds, text, form in turns
    ]
    return pd.DataFrame(rows, columns=["session", "speaker", "start", "end", "text"])


def in_order(turns):
    return sorted(turns, key=lambda turn: (turn[0], turn[1], turn[2]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@FEW
@given(turns=TURNS)
def test_turns_come_back_as_they_were(tmp_path_factory, name, turns):
    table, folder = table_of(turns), tmp_path_factory.mktemp("t")
    write_turns(table, folder, name)
    annotation = read_turns(folder, name)
    read_back = in_order((t.session, t.speaker, t.start, t.end, t.text) for t in annotation.turns)
    expected = []
    for session, speaker, start, end, text in table.itertuples(index=False, name=None):
        names = [normal_name(session), normal_name(speaker)]
        if name in UNDERSCORED:
            names = [part.replace(" ", "_") for part in names]
        expected.append((*names, start, end, text))
    expected = in_order(expected)
    assert [row[:2] for row in read_back] == [row[:2] for row in expected]
    slack = 1.001 * PRECISION[name] if PRECISION[name] else 0
    for (*_, start, end, text), (*_, first, last, spoken_text) in zip(
        read_back, expected, strict=True
    ):
        assert abs(start - first) <= slack
        assert abs(end - last) <= slack
        if name not in MARKED:
            assert text == ("" if name in TEXTLESS else spoken_text)
    assert [note for note in annotation.notes if note.kind == "dropped"] == []


@pytest.fixture(scope="module")
def real_turns(real_data):
    """Return every third turn of 19 sessions."""
    turns = read_turns(real_data / "aishell4" / "rttm").turns[::3]
    assert len(turns) > 3000
    return pd.DataFrame(turns)


@pytest.mark.parametrize("name", FORMATS)
def test_real_meetings_come_back_as_they_were(tmp_path, real_turns, name):
    write_turns(real_turns, tmp_path / "out", name)
    read_back = pd.DataFrame(read_turns(tmp_path / "out", name).turns)
    order = ["session", "speaker", "start", "end"]
    read_back, expected = (
        rows.sort_values(order, ignore_index=True)[order] for rows in (read_back, real_turns)
    )
    assert read_back[["session", "speaker"]].equals(expected[["session", "speaker"]])
    apart = (read_back[["start", "end"]] - expected[["start", "end"]]).abs().to_numpy().max()
    assert apart <= 1.001 * PRECISION[name]


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if not form.one_session])
def test_a_format_of_several_sessions_is_one_file_where_it_has_the_suffix(tmp_path, name):
    table = pd.DataFrame(
        {"session": ["S1", "S2"], "speaker": ["A", "A"], "start": [0.0, 1.0], "end": [1.0, 2.0]}
    )
    suffix = FORMATS[name].suffixes[0] if FORMATS[name].suffixes else ""
    path = tmp_path / f"all{suffix}"
    assert write_turns(table, path, name) == [path]
    read_back = [(turn.session, turn.start) for turn in read_turns(path).turns]
    assert sorted(read_back) == [("S1", 0.0), ("S2", 1.0)]


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.one_session])
def test_a_format_of_one_session_is_a_folder_where_there_are_several(tmp_path, name):
    table = pd.DataFrame({"session": ["S1", "S2"], "speaker": "A", "start": 0.0, "end": 1.0})
    suffix = FORMATS[name].suffixes[0]
    with pytest.raises(InputError, match=f"the turns are of 2.*pass --format {name}"):
        write_turns(table, tmp_path / f"a{suffix}")
    assert [file.stem for file in write_turns(table, tmp_path / "out", name)] == ["S1", "S2"]
    assert {turn.session for turn in read_turns(tmp_path / "out").turns} == {"S1", "S2"}


@pytest.mark.parametrize("name", UNDERSCORED)
@pytest.mark.parametrize(
    ("column", "names", "what"),
    [
        ("speaker", ["Anna Lee", "Anna_Lee"], "speakers of session 'S1' 'Anna Lee' and 'Anna_Lee'"),
        ("session", ["S 1", "S_1"], "sessions 'S 1' and 'S_1'"),
    ],
)
def test_names_that_blanks_alone_tell_apart_are_refused(tmp_path, name, column, names, what):
    table = pd.DataFrame({"session": "S1", "speaker": "A", "start": [0.0, 1.0], "end": 2.0})
    with pytest.raises(InputError, match=f"{what} would both be written as"):
        write_turns(table.assign(**{column: names}), tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["rttm", "lhotse", "kaldi", "csv"])
def test_channels_come_back_where_a_format_has_them(tmp_path, name):
    table = pd.DataFrame({"session": "S1", "speaker": "A", "start": [0.0, 1.0], "end": [1.0, 2.0]})
    write_turns(table.assign(channel=[0, 1]), tmp_path / "out", name)
    assert sorted((t.start, t.channel) for t in read_turns(tmp_path / "out").turns) == [
        (0.0, "0"),
        (1.0, "1"),
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_turns_shorter_than_the_precision_stay_turns(tmp_path, name):
    table = pd.DataFrame({"session": ["S1"], "speaker": "A", "start": 1.0, "end": 1.0 + 1e-7})
    write_turns(table, tmp_path / "out", name)
    (turn,) = read_turns(tmp_path / "out", name).turns
    assert turn.start < turn.end < turn.start + 0.002


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"speaker": "<NA>"},
            "turns, row 1: speaker is '<NA>', expected a name, not a placeholder",
        ),
        ({"speaker": "a/b"}, "row 1: speaker is 'a/b', expected a plain name"),
        ({"start": "x"}, "row 1: start is 'x', expected a finite number"),
        ({"end": float("nan")}, "row 1: end is nan, expected a finite number"),
        ({"end": 0.0}, "row 1: duration is '-1' s, expected > 0"),
        ({"channel": "left"}, "row 1: channel is 'left', expected an index from 0"),
    ],
)
def test_a_turn_that_no_format_holds_is_refused(tmp_path, change, message):
    row = {"session": "S1", "speaker": "A", "start": 1.0, "end": 2.0, **change}
    with pytest.raises(InputError, match=message):
        write_turns(pd.DataFrame([row]), tmp_path / "a.rttm")


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(InputError, match=r"columns \['speaker'\] are missing, found \['session', "):
        write_turns(pd.DataFrame({"session": [], "start": [], "end": []}), tmp_path / "a.rttm")


@pytest.mark.parametrize("name", ["srt", "txt"])
def test_a_name_that_would_be_read_short_is_refused(tmp_path, name):
    row = {"session": "S1", "speaker": "A]: B", "start": 1.0, "end": 2.0}
    with pytest.raises(InputError, match=r"speaker is 'A\]: B', expected a name without '\]: '"):
        write_turns(pd.DataFrame([row]), tmp_path / "a", name)


def test_the_same_turns_are_the_same_bytes(tmp_path):
    table = pd.DataFrame({"session": "S1", "speaker": ["A", "B"], "start": [0.0, 1.0], "end": 2.0})
    for name in FORMATS:
        for part, rows in (("a", table), ("b", table[::-1])):
            write_turns(rows, tmp_path / part / name, name)
    files = [file for file in (tmp_path / "a").rglob("*") if file.is_file()]
    assert len(files) == len(FORMATS) + 2  # of Kaldi three
    for file in files:
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()
