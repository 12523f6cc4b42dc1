from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spk.common.errors import InputError
from spk.manifests.formats.rttm import read_rttm

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


def test_an_annotation_shows_how_much_it_holds(tmp_path):
    assert repr(read_rttm(write(tmp_path, GOOD))) == "<Annotation 1 turn, 0 notes>"


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
def test_a_bad_line_is_reported_with_its_number_or_dropped_and_listed(tmp_path, line, message):
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


def test_a_file_without_turns_is_reported_by_its_path(tmp_path):
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
    with pytest.raises(InputError, match=r"holds 0 files with suffix \.rttm; correct the path"):
        read_rttm(tmp_path / "empty")


@pytest.mark.parametrize(("name", "command"), [("S1.TextGrid", "textgrid"), ("S1.EAF", "eaf")])
def test_a_folder_of_another_format_is_told_with_the_command_that_reads_it(tmp_path, name, command):
    (tmp_path / name).touch()
    other = rf"but 1 with {Path(name).suffix.lower()}; run spk-manifests {command} on it"
    with pytest.raises(InputError, match=rf"holds 0 files with suffix \.rttm, {other}"):
        read_rttm(tmp_path)


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


FIELDS = "SPEAKER S1 1 0.5 1.0 <NA> <NA> {} {}"


@pytest.mark.parametrize(
    "rest", ["<NA>", "<NA> <NA>", "NA NA", "0.87 <NA>", "1.0", ".5 12.25", "0.000 <NA>"]
)
def test_the_ways_in_which_others_write_the_last_fields_are_read(tmp_path, rest):
    """LDC and EEND write 9 fields, NeMo, pyannote, VBx, dscore and spyder 10."""
    (turn,) = read_rttm(write(tmp_path, FIELDS.format("A", rest))).turns
    assert (turn.speaker, turn.end, turn.channel) == ("A", 1.5, "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        # a writer of 9 fields and a blank in a name make 10
        (FIELDS.format("Anna Lee", "<NA>"), "confidence is 'Lee', expected <NA> or 0.0 to 1.0"),
        (FIELDS.format("Speaker 1", "<NA>"), "confidence is '1', expected .* a blank in the"),
        (FIELDS.format("Speaker 2", "<NA>"), "confidence is '2'"),
        (FIELDS.format("A", "<NA>").replace("S1", "my talk"), "channel is 'talk', expected a num"),
        (FIELDS.format("A", "<NA>").replace("S1", "day 2"), "transcript is '1.0', expected <NA>"),
        # a writer of 10 fields makes 11, or 12
        (FIELDS.format("Anna Lee", "<NA> <NA>"), "has 11 fields, .* a blank in the session or"),
        (FIELDS.format("A. B. C", "<NA> <NA>"), "has 12 fields, .* a blank in the session or"),
        # no name at all, and a line cut short
        (FIELDS.format("<NA>", "<NA>"), "speaker is '<NA>', expected a name, not a placeholder"),
        (FIELDS.format("A", "<NA>").replace("S1", "<na>"), "session is '<na>', expected a name"),
        (FIELDS.format("", "<NA> <NA>"), "speaker is '<NA>', expected a name"),
        (FIELDS.format("A", "<NA>").replace(" S1", ""), "has 8 fields, expected 9 or 10"),
        (FIELDS.format("Ali", ""), "has 8 fields, .* a line cut short"),
        (FIELDS.format("A", "<NA> x"), "look-ahead time is 'x', expected a finite number"),
        (FIELDS.format("A", "<NA>").replace(" 1 ", " left "), "channel is 'left', expected"),
    ],
)
def test_a_shifted_line_is_never_read_with_another_name(tmp_path, line, message):
    with pytest.raises(InputError, match=f"line 1: {message}.*, or pass --skip-bad$"):
        read_rttm(write(tmp_path, line))


def channels(folder, *turns):
    """Return {(session, speaker): channel} of turns given as (session, channel, speaker)."""
    lines = [
        f"SPEAKER {session} {channel} {2 * n} 1 <NA> <NA> {speaker} <NA> <NA>"
        for n, (session, channel, speaker) in enumerate(turns)
    ]
    reading = read_rttm(write(folder, "\n".join(lines)))
    return {turn[:2]: turn.channel for turn in reading.turns}, reading.notes


@pytest.mark.parametrize("channel", ["1", "0", "A", "<NA>", "NA", "01"])
def test_a_session_on_the_first_channel_alone_says_nothing_about_channels(tmp_path, channel):
    found, notes = channels(tmp_path, ("S1", channel, "A"), ("S1", channel, "B"))
    assert set(found.values()) == {""}
    assert notes == []


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (("1", "2"), ("0", "1")),
        (("0", "1"), ("0", "1")),
        (("A", "B"), ("0", "1")),
        (("b", "a"), ("1", "0")),
        (("2", "2"), ("1", "1")),
        (("3", "<NA>"), ("2", "")),
        (("8", "1"), ("7", "0")),
    ],
)
def test_other_channels_are_kept_counted_from_0(tmp_path, named, expected):
    found, notes = channels(tmp_path, ("S1", named[0], "A"), ("S1", named[1], "B"))
    assert tuple(found.values()) == expected
    assert [note.kind for note in notes] == ["channel"]


def test_each_session_counts_its_channels_by_itself(tmp_path):
    turns = [
        ("S1", "1", "A"),
        ("S2", "0", "A"),
        ("S2", "1", "B"),
        ("S3", "1", "A"),
        ("S3", "2", "B"),
    ]
    found, _ = channels(tmp_path, *turns)
    assert list(found.values()) == ["", "0", "1", "0", "1"]


def test_a_session_whose_channels_are_named_in_two_ways_is_refused(tmp_path):
    with pytest.raises(InputError, match="line 2: channel is 'A', expected a number as in s1.rttm"):
        channels(tmp_path, ("S1", "2", "A"), ("S1", "A", "B"))


def test_aligned_columns_tabs_and_the_line_ends_of_an_old_mac_are_read(tmp_path):
    aligned = "SPEAKER   S1\t1     0.500     1.000   <NA>   <NA>   A       <NA>"
    reading = read_rttm(write(tmp_path, f"{aligned}\r{aligned.replace('A ', 'B ')}\r"))
    assert [(turn.speaker, turn.line) for turn in reading.turns] == [("A", 0), ("B", 1)]


def test_a_stray_carriage_return_changes_no_line_number(tmp_path):
    reading = read_rttm(write(tmp_path, f"{GOOD}\r\r\n{GOOD.replace('001', '002')}\r\n"))
    assert [turn.line for turn in reading.turns] == [0, 1]


def test_names_from_macos_are_composed_and_reported(tmp_path):
    text = "".join(
        FIELDS.format(name, "<NA>").replace("0.5", f"{n}.5") + "\n"
        for n, name in enumerate(("Jo\u0308rg", "Jörg", "회의"))
    )
    reading = read_rttm(write(tmp_path, text))
    assert [turn.speaker for turn in reading.turns] == ["Jörg", "Jörg", "회의"]
    assert [(note.kind, note.message[:17]) for note in reading.notes] == [
        ("renamed", "speaker: 1 name i")
    ]
