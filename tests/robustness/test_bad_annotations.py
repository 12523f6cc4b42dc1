"""Annotations that are broken, strange or hostile: what the commands tell of them."""

import os
from pathlib import Path

import pandas as pd
import pytest

from spk.manifests.table import read_table

LINE = "SPEAKER {session} 1 {start} {duration} <NA> <NA> {speaker} <NA> <NA>"
GOOD = {"session": "S1", "start": "1.0", "duration": "2.0", "speaker": "001-M"}
PLAIN = "expected a plain name of at most 100 characters without '/'"
GRID = 'File type = "ooTextFile"\nObject class = "TextGrid"\n0 9 <exists> 1\n'
TIER = '"IntervalTier" "001-M" 0 9 1\n'
MANY = 10_000_000


def line(**changes):
    return LINE.format(**{**GOOD, **changes})


RTTM = {
    "0 bytes": (b"", "a.rttm: holds 0 usable turns of 0, expected at least 1"),
    "binary": (bytes(range(1, 256)), "a.rttm: byte 127 is not UTF-8, expected UTF-8 or UTF-16"),
    "8 fields": (b"SPEAKER S1 1 1.0 2.0 <NA> <NA> 1", "a.rttm, line 1: has 8 fields, expected 9"),
    "negative start": (line(start="-1"), "line 1: start is '-1' s, expected >= 0"),
    "negative length": (line(duration="-1"), "line 1: duration is '-1' s, expected > 0"),
    "NaN": (line(start="nan"), "line 1: onset is 'nan', expected a finite number"),
    "hexadecimal": (line(start="0x10"), "line 1: onset is '0x10', expected a finite number"),
    "1e9 s": (line(start="1e9"), "line 1: end is '1e+09' s, expected at most 1e+07"),
    "1e308 s": (line(start="1e308"), "line 1: end is '1e+308' s, expected at most 1e+07"),
    "infinite end": (line(start="1e308", duration="1e308"), "line 1: end is 'inf' s, expected at"),
    "path upwards": (line(session="../../etc/x"), f"line 1: session is '../../etc/x', {PLAIN}"),
    "absolute path": (line(session="/etc/x"), f"line 1: session is '/etc/x', {PLAIN}"),
    "Windows path": (line(session="..\\x"), "line 1: session is '..\\\\x', expected a plain name"),
    "speaker upwards": (line(speaker=".."), f"line 1: speaker is '..', {PLAIN}"),
    "control character": (line(session="S\x071"), f"line 1: session is 'S\\x071', {PLAIN}"),
    "escape sequence": (line(speaker="\x1b[2J"), f"line 1: speaker is '\\x1b[2J', {PLAIN}"),
    "right to left": (line(speaker="a\u202eb"), f"line 1: speaker is 'a\\u202eb', {PLAIN}"),
    "long word": ("x" * MANY, f"line 1: type is '{'x' * 40}', expected 'SPEAKER'"),
    "long session": (line(session="x" * MANY), f"line 1: session is '{'x' * 37}...', expected a"),
    "long number": (line(start="1" * MANY), f"line 1: onset is '{'1' * 37}...', expected a finite"),
    "many fields": ("SPEAKER" + " x" * 1_000_000, "line 1: has 1000001 fields, expected 9 or 10"),
    "twice": (f"{line()}\n{line()}", "a.rttm, line 2: the turn of '001-M' from 1 to 3 s is alre"),
    "zeros after a crash": (f"{line()}\n" + "\0" * 512, "line 2: type is '\\x00\\x00"),
}
TEXTGRID = {
    "0 bytes": (b"", "S1.TextGrid, line 1: is not a TextGrid, expected 'File"),
    "binary": (bytes(range(1, 256)), "S1.TextGrid: byte 127 is not UTF-8"),
    "binary of Praat": (b"ooBinaryFile\x08TextGrid", "S1.TextGrid: is a binary file of Praat (ooB"),
    "another kind": (
        '"ooTextFile" "Pitch"',
        "line 1: is a text file of Praat that holds a Pitch, not a",
    ),
    "no tiers": (GRID.replace(" 1\n", " 0\n"), "S1.TextGrid: holds 0 usable turns of 0"),
    "cut short": (GRID + TIER, "S1.TextGrid: holds 0 usable turns of 0"),
    "tiers by the million": (GRID.replace(" 1\n", " 999999999\n"), "ends at line"),
    "points by the million": (GRID + '"TextTier" "x" 0 9 999999999\n', "ends at line 4 where a"),
    "size of a million digits": (GRID + TIER.replace("9 1", "9 " + "1" * 10**6), "size is '1111"),
    "size in other digits": (GRID.replace(" 1\n", " ²\n"), "ends at line 3 where a number"),
    "negative": (GRID + TIER + '-1 2 "嗯"', "S1.TextGrid, line 5: start is '-1' s, expected >= 0"),
    "backwards": (GRID + TIER + '3 2 "嗯"', "line 5: duration is '-1' s, expected > 0"),
    "1e9 s": (GRID + TIER + '3 1e9 "嗯"', "line 5: end is '1e+09' s, expected at most 1e+07"),
    "1e999 s": (GRID + TIER + '1e999 1e999 "嗯"', "line 5: start is 'inf' s, expected >= 0"),
    "speaker upwards": (
        GRID + TIER.replace("001-M", "../x") + '1 2 "嗯"',
        f"line 5: speaker is '../x', {PLAIN}",
    ),
    "open quote": (
        GRID + TIER + '1 2 "' + "x" * MANY,
        "S1.TextGrid, line 5: a quoted text has no end",
    ),
}
SAME = {
    "BOM": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.encode("utf-16-le"),
}


def as_bytes(content):
    return content if isinstance(content, bytes) else content.encode()


@pytest.mark.parametrize("case", RTTM)
def test_a_bad_rttm_is_one_line(told, case):
    content, message = RTTM[case]
    Path("a.rttm").write_bytes(as_bytes(content))
    assert message in told("spk-manifests rttm a.rttm t.csv")
    assert not Path("t.csv").exists()


@pytest.mark.parametrize("case", TEXTGRID)
def test_a_bad_textgrid_is_one_line(told, case):
    content, message = TEXTGRID[case]
    Path("S1.TextGrid").write_bytes(as_bytes(content))
    assert message in told("spk-manifests textgrid S1.TextGrid t.csv")
    assert not Path("t.csv").exists()


@pytest.mark.parametrize("case", SAME)
@pytest.mark.parametrize(
    ("command", "name", "text"),
    [("rttm", "S1.rttm", line() + "\n"), ("textgrid", "S1.TextGrid", GRID + TIER + '1 3 "嗯"\n')],
)
def test_other_spellings_of_text_are_read_alike(told, typed, case, command, name, text):
    for content, out in ((text.encode(), "plain.csv"), (SAME[case](text), "other.csv")):
        Path(name).write_bytes(content)
        assert typed(f"spk-manifests {command} {name} {out}").exit_code == 0
    assert Path("other.csv").read_bytes() == Path("plain.csv").read_bytes()


@pytest.mark.parametrize(
    "name", ["=cmd()", "+1+1", "-2+3", "@SUM(1)", "<script>", 'a,"b', "NA", "001", "1e5", "None"]
)
def test_a_label_is_never_changed_on_its_way_to_a_table(told, typed, name):
    """A spreadsheet may take ``=cmd()`` for a formula: SECURITY.md says how to open such a file."""
    Path("a.rttm").write_text(line(speaker=name))
    for table in ("t.csv", "t.parquet"):
        assert typed(f"spk-manifests rttm a.rttm {table} --scope corpus").exit_code == 0
        assert read_table(table)["speaker"].tolist() == [name]
    assert typed("spk-manifests cut t.csv cut --listing-only").exit_code == 0
    listing = pd.read_csv("cut/segments.csv", dtype=str, keep_default_na=False)
    assert listing["label"].tolist() == [name]


@pytest.mark.parametrize("path", ["missing.rttm", "x" * 5000, "folder"])
def test_a_path_to_nothing_is_one_line(told, path):
    Path("folder").mkdir()
    expected = "holds 0 files with suffix .rttm" if path == "folder" else "no such file or folder"
    assert expected in told(f"spk-manifests rttm {path} t.csv", longest=6000)


def test_a_link_to_nothing_is_one_line(told):
    os.symlink("nothing", "a.rttm")
    assert "a.rttm: cannot be read (No such file or directory)" in told(
        "spk-manifests rttm . t.csv"
    )


def test_files_whose_names_are_no_text_are_one_line(told):
    """Linux lets a name be any bytes; such a name cannot be written into a table."""
    with open(b"S\xff1.TextGrid", "wb") as file:
        file.write((GRID + TIER + '1 3 "嗯"\n').encode())
    assert "session is 'S\\udcff1', expected a plain name" in told("spk-manifests textgrid . t.csv")
    Path("b.rttm").write_text(line())
    Path("wav").mkdir()
    with open(b"wav/S\xff1.wav", "wb"):
        pass
    missing = "recordings without annotation: 'S\\udcff1' (S\\udcff1.wav)"
    assert missing in told("spk-manifests rttm b.rttm t.csv --audio-root wav")
