import pytest

from spk.common.errors import InputError
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.formats.textgrid import has_speech, read_textgrid, write_textgrid
from spk.manifests.formats.turns import Turn

TIERS = {
    "001-M": [(0.0, 1.5, ""), (1.5, 3.25, '他说 "好" <sil>'), (3.25, 20.0, "<sil>")],
    "002-F": [(0.0, 2.0, "嗯 [1] 2 xmin = 3"), (2.0, 20.0, "")],
}


def long_form(tiers=TIERS, end=20.0):
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0 "]
    lines += [f"xmax = {end} ", "tiers? <exists> ", f"size = {len(tiers)} ", "item []: "]
    for number, (name, intervals) in enumerate(tiers.items(), 1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier" ']
        lines += [f'        name = "{name}" ', "        xmin = 0 "]
        lines += [f"        xmax = {intervals[-1][1]} "]
        lines += [f"        intervals: size = {len(intervals)} "]
        for index, (start, stop, mark) in enumerate(intervals, 1):
            doubled = mark.replace('"', '""')
            lines += [f"        intervals [{index}]:", f"            xmin = {start} "]
            lines += [f"            xmax = {stop} ", f'            text = "{doubled}" ']
    return "\n".join(lines) + "\n"


def short_form(tiers=TIERS, end=20.0):
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", str(end)]
    lines += ["<exists>", str(len(tiers))]
    for name, intervals in tiers.items():
        lines += ['"IntervalTier"', f'"{name}"', "0", str(intervals[-1][1]), str(len(intervals))]
        for start, stop, mark in intervals:
            doubled = mark.replace('"', '""')
            lines += [str(start), str(stop), f'"{doubled}"']
    return "\n".join(lines) + "\n"


def read(folder, text, encoding="utf-8", **options):
    (folder / "s1.TextGrid").write_bytes(text.encode(encoding))
    return read_textgrid(folder, **options)


@pytest.mark.parametrize("form", [long_form, short_form])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_every_form_and_encoding_gives_the_same_turns(tmp_path, form, encoding):
    reading = read(tmp_path, form(), encoding)
    assert [turn[:5] for turn in reading.turns] == [
        ("s1", "001-M", 1.5, 3.25, 0),
        ("s1", "002-F", 0.0, 2.0, 1),
    ]
    assert [note.message for note in reading.notes] == ["1 interval holds only non-lexical marks"]


def test_all_of_the_corpus_marks_alone_are_no_speech():
    assert not has_speech(" <sil><$> <> <%> <#> & <-> <_> ")
    assert has_speech("<%> 好")


def test_a_tier_that_ends_before_its_file_is_read_and_reported(tmp_path):
    tiers = {"001-M": [(0.0, 1.0, ""), (1.0, 2.0, "a")], "002-F": [(0.0, 20.0, "b")]}
    reading = read(tmp_path, long_form(tiers))
    assert [turn[:4] for turn in reading.turns] == [("s1", "001-M", 1, 2), ("s1", "002-F", 0, 20)]
    assert [note.kind for note in reading.notes] == ["repaired"]
    assert "tier '001-M' ends at 2 s, its file at 20 s" in reading.notes[0].message


def test_a_tier_with_fewer_intervals_than_announced_is_read_and_reported(tmp_path):
    text = short_form().replace('"001-M"\n0\n20.0\n3\n', '"001-M"\n0\n20.0\n5\n')
    reading = read(tmp_path, text)
    assert [turn.speaker for turn in reading.turns] == ["001-M", "002-F"]
    assert "tier '001-M' has 3 intervals, announced 5" in {n.message for n in reading.notes}


def test_point_tiers_are_passed_over_and_reported(tmp_path):
    points = '"TextTier"\n"marks"\n0\n20\n1\n3.5\n"beep"\n'
    text = short_form().replace("<exists>\n2\n", f"<exists>\n3\n{points}")
    reading = read(tmp_path, text)
    assert len(reading.turns) == 2
    assert "tier 'marks' is a TextTier with 1 point, not speech" in reading.notes[0].message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s1.TextGrid, line 1: is not a TextGrid, expected"),
        ('"ooTextFile"\n"Sound"\n', "line 1: is a text file of Praat that holds a Sound, not a"),
        (short_form()[:-30], "line 29: a quoted text has no end|s1.TextGrid: ends at line"),
        (short_form().replace("\n3\n", "\n-3\n"), "line 12: size is '-3', expected a whole number"),
        (
            short_form({"a": [(3.0, 2.0, "x"), (2.0, 20.0, "")]}),
            "line 14: duration is '-1' s, expected > 0",
        ),
        (
            short_form().replace("<exists>\n2\n", "<exists>\n1\n"),
            "line 22: found 'IntervalTier' after 1 tier, expected the file's end",
        ),
        (short_form({"a/b": [(0.0, 20.0, "x")]}), "speaker is 'a/b', expected a plain name"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_bad_intervals_can_be_dropped_and_are_listed(tmp_path):
    tiers = {"a": [(3.0, 2.0, "x"), (2.0, 20.0, "y")]}
    reading = read(tmp_path, short_form(tiers), skip_bad=True)
    assert [turn[2:4] for turn in reading.turns] == [(2.0, 20.0)]
    assert [note.kind for note in reading.notes] == ["dropped"]


def test_nothing_is_kept_of_a_file_that_is_dropped(tmp_path):
    (tmp_path / "whole.TextGrid").write_text(short_form())
    reading = read(tmp_path, short_form()[:-30], skip_bad=True)
    assert {turn.session for turn in reading.turns} == {"whole"}
    assert ("dropped", "s1.TextGrid") in [note[:2] for note in reading.notes]


def test_a_file_without_speech_is_reported(tmp_path):
    reading = read(tmp_path, short_form({"001-M": [(0.0, 20.0, "")]}))
    assert [note[:2] for note in reading.notes] == [("empty", "s1.TextGrid")]


def test_a_textgrid_made_of_a_real_rttm_gives_its_turns_back(real_data, tmp_path):
    turns = read_rttm(real_data / "meetings/TextGrid/20990101_S_R001S01C01.rttm").turns
    end = max(turn.end for turn in turns) + 1
    tiers: dict[str, list] = {}
    for turn in turns:
        tiers.setdefault(turn.speaker, []).append((turn.start, turn.end, "话"))
    silent = {name: [*sorted(tier), (end - 0.5, end, "")] for name, tier in tiers.items()}
    found = read(tmp_path, long_form(silent, end)).turns
    assert sorted(turn[1:4] for turn in found) == sorted(turn[1:4] for turn in turns)


def grid(text):
    """Return the free form: one tier `A` of two intervals, with comments and free words."""
    return text.replace(
        "{}",
        '0 20 ! domain\n<exists>\n1 tier\n"IntervalTier" "A" 0 20\n2\n0 4 "hi" ! 1 of 2\n4 20 ""\n',
    )


@pytest.mark.parametrize(
    "head",
    [
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n{}',
        'File type = "ooTextFile short"\n"TextGrid"\n\n{}',
        'File type = "ooTextFile short"\nTextGrid\n{}',
        '"ooTextFile"\n"TextGrid"\n{}',
        '"ooTextFile" ! Praat\n! made by hand, 3 times\n"TextGrid" ! 7\n{}',
        '"ooTextFile" "TextGrid" {}',
        'File type = "ooTextFile"\r\nObject class = "TextGrid"\r\n{}',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_every_head_and_comments_are_read(tmp_path, head, encoding):
    (turn,) = read(tmp_path, grid(head), encoding).turns
    assert turn[:4] == ("s1", "A", 0.0, 4.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '"Praat chronological TextGrid text file"\n0 20\n',
            "is a chronological TextGrid of Praat",
        ),
        ('"ooTextFile"\n"Collection"\n', "line 1: is a text file of Praat that holds a Collection"),
        ('File type = "ooTextFile"\nObject class = "Pitch 1"\n', "holds a Pitch 1, not a TextGrid"),
        (grid('"ooTextFile"\n"TextGrid"\n{}').replace("0 4 ", "0 40% "), "'40%', expected a plain"),
        (grid('"ooTextFile"\n"TextGrid"\n{}').replace("0 4 ", "0 4/2 "), "'4/2', expected a plain"),
        (
            grid('"ooTextFile"\n"TextGrid"\n{}').replace('"hi" !', '"hi !'),
            "line 9: a quoted text has no end, expected another",
        ),
    ],
)
def test_other_forms_of_praat_are_called_what_they_are(tmp_path, text, message):
    (tmp_path / "s1.TextGrid").write_text(text)
    with pytest.raises(InputError, match=message):
        read_textgrid(tmp_path / "s1.TextGrid")


WORDS, PHONES = (
    [(0.0, 1.0, ""), (1.0, 2.0, "day")],
    [(0.0, 1.0, ""), (1.0, 1.5, "d"), (1.5, 2, "ey")],
)
ALIGNED = {
    "A - words": WORDS,
    "A - phones": PHONES,
    "Ben  - Words": WORDS,
    "Ben  - phones": PHONES,
    "  CHI* ": [(0.0, 2.0, "ja")],
}


def test_an_aligners_word_tiers_are_the_speakers_and_that_is_reported(tmp_path):
    reading = read(tmp_path, short_form(ALIGNED, 2.0))
    assert [turn[1:4] for turn in reading.turns] == [
        ("A", 1.0, 2.0),
        ("Ben", 1.0, 2.0),
        ("CHI*", 0.0, 2.0),
    ]
    (told,) = [note.message for note in reading.notes if note.kind == "tiers"]
    assert told == (
        "tiers: read 'A - words' as 'A', 'Ben  - Words' as 'Ben'; left out 'A - phones', "
        "'Ben  - phones'; --tiers chooses the speakers'"
    )


@pytest.mark.parametrize(
    ("tiers", "speakers"),
    [
        (["A - phones"], {"A - phones"}),
        (["* - [Ww]ords"], {"A - words", "Ben  - Words"}),
        (["CHI?", "A - words"], {"CHI*", "A - words"}),
        (["*"], {"A - words", "A - phones", "Ben  - Words", "Ben  - phones", "CHI*"}),
    ],
)
def test_tiers_are_chosen_by_name_or_pattern(tmp_path, tiers, speakers):
    reading = read(tmp_path, short_form(ALIGNED, 2.0), tiers=tiers)
    assert {turn.speaker for turn in reading.turns} == speakers


def test_tiers_that_no_file_has_are_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(
        InputError, match="tiers are 'A - words', .*, expected Ann; correct --tiers"
    ):
        read(tmp_path, short_form(ALIGNED, 2.0), tiers=["Ann"])


SILENT = {
    "A": [(n, n + 1.0, mark) for n, mark in enumerate(["sil", "SP", "<eps>", "h#", "hm", "oh"])]
}


def test_marks_of_aligners_are_silence_and_reported_or_set(tmp_path):
    reading = read(tmp_path, short_form(SILENT, 6.0))
    assert [turn.start for turn in reading.turns] == [4.0, 5.0]
    assert [note.message for note in reading.notes] == [
        "taken as silence: 1 'sil', 1 'SP', 1 '<eps>', 1 'h#'; --silence sets the marks"
    ]
    other = read(tmp_path, short_form(SILENT, 6.0), silence=["HM", "oh"])
    assert [turn.start for turn in other.turns] == [0.0, 1.0, 2.0, 3.0]


def test_a_tier_without_end_of_marks_and_times_of_other_kinds(tmp_path):
    tiers = {"A": [(-0.0, 1.0, "two\nlines"), (1.0, 2.0, "x")]}
    text = short_form(tiers, 2.0).replace("\n0.0\n1.0\n", "\n-0\n1.0\n")
    (first, _) = read(tmp_path, text).turns
    assert str(first.start) == "0.0", "-0 is 0"
    late = short_form({"A": [(1358.5, 1360.0, "x")]}, 1360.0).replace("\n0\n1360", "\n1358.5\n1360")
    reading = read(tmp_path, late)
    assert reading.turns[0].start == 1358.5
    assert [note.kind for note in reading.notes] == ["offset"]
    with pytest.raises(InputError, match=r"start is '-1' s, expected >= 0; .*, or pass --skip-bad"):
        read(tmp_path, short_form({"A": [(-1.0, 1.0, "x")]}, 2.0))


def test_what_praat_never_writes_is_reported(tmp_path):
    tiers = {"A": [(0.0, 2.0, "x"), (1.0, 3.0, "y"), (3.0, 4.0, "")]}
    assert "strange" in [note.kind for note in read(tmp_path, short_form(tiers, 4.0)).notes]


def test_two_tiers_of_one_name_are_one_speaker_and_reported(tmp_path):
    tiers = {"A": [(0.0, 1.0, "x"), (1.0, 4.0, "")], " A": [(0.0, 2.0, ""), (2.0, 4.0, "y")]}
    reading = read(tmp_path, short_form(tiers, 4.0))
    assert {turn.speaker for turn in reading.turns} == {"A"}
    assert [note.kind for note in reading.notes] == ["renamed", "tiers"]


def test_what_is_written_is_a_tier_per_speaker_with_silence_between(tmp_path):
    turns = [
        Turn("S1", 'A "x"', 0.5, 1.25, 0, "row 1", text='say "a"'),
        Turn("S1", "B", 1.0, 2.0, 1, "row 2", text="<sil>"),
        Turn("S1", "B", 2.0, 3.5, 2, "row 3", text="b"),
    ]
    write_textgrid(turns, tmp_path / "S1.TextGrid")
    lines = [line.strip() for line in (tmp_path / "S1.TextGrid").read_text().splitlines()]
    said = [line for line in lines if line.split(" ")[0] in ("xmin", "xmax", "name", "text")]
    assert said == [
        *("xmin = 0", "xmax = 3.5", 'name = "A ""x"""', "xmin = 0", "xmax = 3.5"),
        *("xmin = 0.0", "xmax = 0.5", 'text = ""'),
        *("xmin = 0.5", "xmax = 1.25", 'text = "say ""a"""'),
        *("xmin = 1.25", "xmax = 3.5", 'text = ""'),
        *('name = "B"', "xmin = 0", "xmax = 3.5"),
        *("xmin = 0.0", "xmax = 1.0", 'text = ""'),
        *("xmin = 1.0", "xmax = 2.0", 'text = "speech"'),
        *("xmin = 2.0", "xmax = 3.5", 'text = "b"'),
    ]


def test_turns_of_one_speaker_that_overlap_are_all_written(tmp_path):
    times = [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0), (2.5, 2.75)]
    turns = [Turn("S1", "A", *span, n, f"row {n}") for n, span in enumerate(times)]
    write_textgrid(turns, tmp_path / "S1.TextGrid")
    annotation = read_textgrid(tmp_path / "S1.TextGrid")
    assert sorted((turn.start, turn.end) for turn in annotation.turns) == times
    assert {turn.speaker for turn in annotation.turns} == {"A"}
    assert not [note for note in annotation.notes if note.kind in ("strange", "repaired")]
