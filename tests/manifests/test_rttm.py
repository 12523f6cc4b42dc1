import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spk.common.errors import InputError
from spk.manifests.rttm import read_rttm

GOOD = "SPEAKER s1 1 35.8939 1.5251 <NA> <NA> 001-M <NA> <NA>"


def write(folder, text, name="s1.rttm"):
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def test_a_line_becomes_a_turn_with_its_number(tmp_path):
    file = write(tmp_path, f"\n;; comment\n{GOOD}\n")
    (turn,) = read_rttm(file).turns
    assert turn[:3] == ("s1", "001-M", 35.8939)
    assert turn.end == pytest.approx(37.4190, abs=1e-12)
    assert (turn.line, turn.place) == (2, "s1.rttm, line 3")


def test_nine_fields_crlf_bom_and_utf16_are_read_alike(tmp_path):
    nine = " ".join(GOOD.split()[:9])
    for text in (nine, GOOD + "\r\n", ("\ufeff" + GOOD).encode(), GOOD.encode("utf-16")):
        (turn,) = read_rttm(write(tmp_path, text)).turns
        assert (turn.speaker, turn.start) == ("001-M", 35.8939)


def test_folders_are_searched_below(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    write(tmp_path / "a" / "b", GOOD)
    write(tmp_path, GOOD.replace("s1", "s2"), "s2.RTTM")
    assert sorted(turn.session for turn in read_rttm(tmp_path).turns) == ["s1", "s2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD.replace("1.5251", "-0.2"), "line 2: duration is '-0.2' s, expected > 0; delete or"),
        (GOOD.replace("1.5251", "0"), "line 2: duration is '0' s, expected > 0"),
        (GOOD.replace("1.5251", "nan"), "line 2: duration is 'nan', expected a finite number"),
        (GOOD.replace("35.8939", "1_0"), "line 2: onset is '1_0', expected a finite number"),
        (GOOD.replace("35.8939", "1e999"), "line 2: onset is '1e999', expected a finite"),
        (GOOD.replace("35.8939", "-1"), "line 2: start is '-1' s, expected >= 0"),
        (GOOD.replace("35.8939", "1e17"), r"line 2: end is '1e\+17' s, expected at most"),
        (" ".join(GOOD.split()[:8]), "line 2: has 8 fields, expected 9 or 10"),
        (
            GOOD + " x",
            "line 2: has 11 fields, expected 9 or 10: a blank in the session or the speaker",
        ),
        (GOOD.replace("s1", "../x"), r"line 2: session is '\.\./x', expected a plain name"),
        (GOOD.replace("s1", "a/b"), "line 2: session is 'a/b', expected a plain name"),
        (GOOD.replace("s1", "a\x07"), r"line 2: session is 'a\\x07', expected a plain name"),
        (GOOD.replace("001-M", ".."), r"line 2: speaker is '\.\.', expected a plain name"),
        (GOOD.replace("001-M", "说" * 101), "expected a plain name of at most 100 characters"),
        (GOOD.replace("SPEAKER", "SPEKER"), "line 2: type is 'SPEKER', expected 'SPEAKER'"),
    ],
)
def test_a_bad_line_is_told_with_its_number_or_dropped_and_listed(tmp_path, line, message):
    file = write(tmp_path, f"{GOOD}\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_rttm(file)
    reading = read_rttm(file, skip_bad=True)
    assert len(reading.turns) == 1
    assert [(note.kind, note.place) for note in reading.notes] == [("dropped", "s1.rttm, line 2")]


def test_other_line_types_of_the_format_are_counted(tmp_path):
    info = "SPKR-INFO s1 1 <NA> <NA> <NA> unknown 001-M <NA>"
    reading = read_rttm(write(tmp_path, f"{info}\n{GOOD}\n{info}\n"))
    assert len(reading.turns) == 1
    assert reading.notes[0].message.startswith("2 lines hold no turn")


def test_a_file_without_turns_is_told_by_its_path(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", "\n")
    write(tmp_path, GOOD)
    assert [note[:2] for note in read_rttm(tmp_path).notes] == [("empty", "deep/s1.rttm")]


def test_a_link_to_nothing_is_refused(tmp_path):
    write(tmp_path, GOOD)
    (tmp_path / "s2.rttm").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"s2\.rttm: cannot be read \(No such file or directory"):
        read_rttm(tmp_path)


def test_binary_and_missing_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="byte 3 is not UTF-8"):
        read_rttm(write(tmp_path, b"abc\xff\xfe"))
    with pytest.raises(InputError, match="no such file or folder"):
        read_rttm(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds 0 files with suffix \.rttm"):
        read_rttm(tmp_path / "empty")


def test_the_real_meetings_hold_as_many_turns_as_an_independent_reader_counts(real_data):
    for folder in (real_data / "meetings", real_data / "aishell4" / "rttm"):
        counted = sum(
            line.startswith(b"SPEAKER ")
            for file in folder.rglob("*.rttm")
            for line in file.read_bytes().splitlines()
        )
        reading = read_rttm(folder)
        assert len(reading.turns) == counted
        assert reading.notes == []


@settings(max_examples=150, deadline=None)
@given(text=st.text() | st.text(alphabet="SPEAKR s1.e-<NA> \n/\0").map(lambda t: GOOD + "\n" + t))
def test_any_text_gives_turns_or_an_input_error(tmp_path_factory, text):
    file = write(tmp_path_factory.mktemp("any"), text.encode("utf-8", "surrogatepass"))
    try:
        turns = read_rttm(file).turns
    except InputError:
        turns = []
    assert all(0 <= turn.start < turn.end for turn in turns)
