"""`match_csv`: which file is which row, and renaming that loses nothing."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spk.common.errors import InputError
from spk.manifests.cutting import rename as match
from spk.manifests.cutting.rename import match_csv, match_names

LINES = (0, 1, 3, 5)  # annotation lines of the kept segments: two short ones are left out


def names(*numbers: int, speaker: str = "S1_001-M", digits: int = 4, suffix: str = "wav"):
    return [f"{speaker}_{number:0{digits}d}.{suffix}" for number in numbers]


def folder(path: Path, files: list[str]) -> Path:
    """Return a folder whose files hold their first names, so that a swap shows."""
    path.mkdir()
    for name in files:
        (path / name).write_text(name)
    return path


def listing(path: Path, files: list[str]) -> Path:
    rows = [f"./data/segments/{name},{name.rsplit('_', 1)[0]}" for name in files]
    path.write_text("\n".join(["path,label", *rows]) + "\n")
    return path


def content(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir() if file.name != ".lock"}


@pytest.mark.parametrize("numbers", [(0, 1, 2, 3), (1, 2, 3, 4), (100, 250, 300, 4711)])
@pytest.mark.parametrize("digits", [1, 4, 6])
def test_other_numbers_become_the_listed_ones_in_order(tmp_path, numbers, digits):
    files = names(*numbers, digits=digits)
    segments = folder(tmp_path / "segments", files)
    report = match_csv(segments, listing(tmp_path / "a.csv", names(*LINES)))
    assert content(segments) == dict(zip(names(*LINES), files, strict=True))
    changed = [(o, n) for o, n in zip(files, names(*LINES), strict=True) if o != n]
    assert sorted(report.renamed) == sorted(changed)
    assert report.missing == report.extra == report.ambiguous == []


def test_numbers_that_run_through_the_session_are_matched_per_speaker():
    files = names(0, 1) + names(2, 3, speaker="S1_002-F")
    rows = names(1, 2) + names(5, 9, speaker="S1_002-F")
    assert dict(match_names(files, rows).renamed) == dict(zip(files, rows, strict=True))


def test_ten_comes_after_nine():
    files = names(*range(1, 13), digits=1)
    rows = names(*range(20, 32))
    assert dict(match_names(files, rows).renamed) == dict(zip(files, rows, strict=True))


def test_files_that_have_the_listed_names_are_kept(tmp_path):
    segments = folder(tmp_path / "segments", names(*LINES))
    report = match_csv(segments, listing(tmp_path / "a.csv", names(*LINES)))
    assert (report.renamed, report.kept) == ([], names(*LINES))
    assert content(segments) == {name: name for name in names(*LINES)}


def test_missing_and_extra_are_told_apart_by_name():
    rows = names(0, 1, 3, 5) + names(7, 9, speaker="S1_002-F")
    files = names(0, 1, 2, 3, 4, 5) + names(9, speaker="S1_002-F") + names(1, speaker="S2_001-M")
    report = match_names(files, rows)
    assert report.renamed == report.ambiguous == []
    assert report.missing == names(7, speaker="S1_002-F")
    assert report.extra == names(2, 4) + names(1, speaker="S2_001-M")
    assert report.kept == names(0, 1, 3, 5) + names(9, speaker="S1_002-F")


def test_a_speaker_without_files_is_missing_though_others_are_renumbered():
    report = match_names(names(0, 1), names(0, 2) + names(4, speaker="S1_002-F"))
    assert report.renamed == [(names(1)[0], names(2)[0])]
    assert report.missing == names(4, speaker="S1_002-F")


def test_counts_that_differ_are_ambiguous_and_left_alone(tmp_path):
    segments = folder(tmp_path / "segments", names(0, 1, 2))
    report = match_csv(segments, listing(tmp_path / "a.csv", names(*LINES)))
    assert report.ambiguous == ["S1_001-M.wav: 3 files for 4 rows"]
    assert report.renamed == report.missing == report.extra == []
    assert content(segments) == {name: name for name in names(0, 1, 2)}


def test_names_that_are_listed_only_in_part_are_ambiguous():
    # Line numbers of another selection, or running ones with gaps: both could be.
    report = match_names(names(0, 1, 2, 4), names(0, 1, 3, 4))
    assert report.ambiguous == ["S1_001-M.wav: 3 of 4 numbers are listed, the others are not"]


def test_a_speaker_is_not_matched_by_name_where_the_session_is_numbered_otherwise():
    files = names(0, 1, 2) + names(0, 1, speaker="S1_002-F")
    rows = names(0, 1, 2, 4) + names(7, 8, speaker="S1_002-F")
    report = match_names(files, rows)
    assert report.ambiguous == ["S1_001-M.wav: 3 files for 4 rows"]
    assert [new for _, new in report.renamed] == names(7, 8, speaker="S1_002-F")


def test_two_files_of_one_number_are_ambiguous():
    report = match_names(names(3) + names(3, digits=6) + names(4), names(0, 1, 2))
    assert report.ambiguous == ["S1_001-M.wav: several files have the same number"]


def test_names_without_a_number_match_exactly_or_not_at_all():
    report = match_names(["a.wav", "b.wav"], ["b.wav", "c.wav"])
    assert (report.kept, report.missing, report.extra) == (["b.wav"], ["c.wav"], ["a.wav"])


def test_another_suffix_is_another_file():
    report = match_names(names(0, suffix="flac"), names(0))
    assert (report.missing, report.extra) == (names(0), names(0, suffix="flac"))


numbers = st.lists(st.integers(0, 12), unique=True, max_size=8)


@given(files=numbers, rows=numbers)
def test_every_file_and_row_is_accounted_for_once(files, rows):
    report = match_names(names(*files), names(*rows))
    if report.ambiguous:
        assert report.renamed == report.kept == report.missing == report.extra == []
        return
    olds, news = [old for old, _ in report.renamed], [new for _, new in report.renamed]
    assert sorted(olds + report.kept + report.extra) == sorted(names(*files))
    assert sorted(news + report.kept + report.missing) == sorted(names(*rows))


def test_a_dry_run_reports_the_same_and_changes_nothing(tmp_path):
    segments = folder(tmp_path / "segments", names(0, 1, 2, 3))
    rows = listing(tmp_path / "a.csv", names(*LINES))
    before = {file.name: file.stat().st_ino for file in segments.iterdir()}
    report = match_csv(segments, rows, dry_run=True)
    assert {file.name: file.stat().st_ino for file in segments.iterdir()} == before
    assert match_csv(segments, rows) == report


PAIRS = {
    "chain": [("a", "b"), ("b", "c"), ("c", "d")],
    "cycle": [("a", "b"), ("b", "c"), ("c", "a")],
    "swap and one": [("a", "b"), ("b", "a"), ("c", "e")],
}


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
def test_chains_and_cycles_lose_no_file(tmp_path, pairs):
    segments = folder(tmp_path / "segments", ["a", "b", "c"])
    match._rename(segments, pairs)
    assert content(segments) == {new: old for old, new in pairs}


class Killed(BaseException):
    """What a kill does: no line after it runs."""


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
def test_a_renaming_stopped_after_any_step_is_finished_by_the_next_run(
    tmp_path, pairs, monkeypatch
):
    rename, replace = os.rename, os.replace
    rows = listing(tmp_path / "a.csv", ["x.wav"])
    stopped = 0
    for limit in itertools.count():
        segments = folder(tmp_path / f"segments{limit}", ["a", "b", "c"])
        steps = itertools.count()

        def step(act, *paths, steps=steps, limit=limit):
            if next(steps) == limit:
                raise Killed
            act(*paths)

        monkeypatch.setattr(os, "rename", lambda *paths, step=step: step(rename, *paths))
        monkeypatch.setattr(os, "replace", lambda *paths, step=step: step(replace, *paths))
        try:
            match._rename(segments, pairs)
        except Killed:
            stopped += 1
            kept = [file.read_text() for file in segments.iterdir() if "json" not in file.name]
            assert sorted(kept) == ["a", "b", "c"]
        else:
            break
        finally:
            monkeypatch.undo()
        began = (segments / match.ASIDE).exists() or (segments / match.PLACE).exists()
        if began:
            with pytest.raises(InputError, match="an interrupted renaming"):
                match_csv(segments, rows, dry_run=True)
        match_csv(segments, rows)
        finished = {new: old for old, new in pairs}
        assert content(segments) == (finished if began else {name: name for name in "abc"})
    assert stopped == 2 + 2 * len(pairs)  # the plan, each aside, its phase, each into place


def test_hidden_files_of_others_are_left_alone(tmp_path):
    segments = folder(tmp_path / "segments", [*names(*LINES), ".mine.wav.part"])
    match_csv(segments, listing(tmp_path / "a.csv", names(*LINES)))
    assert (segments / ".mine.wav.part").is_file()


def test_nothing_is_overwritten(tmp_path):
    segments = folder(tmp_path / "segments", names(7, 8))
    (segments / names(1)[0]).mkdir()
    with pytest.raises(InputError, match=r"'S1_001-M_0001.wav' exists and is not to be renamed"):
        match._rename(segments, list(zip(names(7, 8), names(0, 1), strict=True)))
    for dry_run in (True, False):
        with pytest.raises(InputError, match=r"'S1_001-M_0008.wav' would become"):
            match_csv(segments, listing(tmp_path / "a.csv", names(0, 1)), dry_run=dry_run)
    assert (segments / names(7)[0]).read_text() == names(7)[0]


def test_a_file_that_came_while_a_renaming_was_interrupted_is_not_overwritten(tmp_path):
    segments = folder(tmp_path / "segments", [".b.wav.match", "b.wav"])
    (segments / match.PLACE).write_text('[["a.wav", "b.wav"]]')
    with pytest.raises(InputError, match="would overwrite 'b.wav', expected what match.aside"):
        match_csv(segments, listing(tmp_path / "a.csv", ["b.wav"]))
    assert (segments / "b.wav").read_text() == "b.wav"
    assert (segments / ".b.wav.match").is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.wav,a\n", r"columns \['path'\] are missing, found \['file', 'label'\]"),
        ("path,label\nx/a.wav,a\ny/a.wav,a\n", r"line 3: path is 'y/a.wav', expected .*not listed"),
        ("path,label\nx/a.txt,a\n", "line 2: path is 'x/a.txt', expected a .wav or .flac"),
        ("", r"a.csv: is empty, 0 bytes, expected a table; write it again"),
    ],
)
def test_a_csv_that_lists_something_else_is_refused(tmp_path, text, message):
    segments = folder(tmp_path / "segments", ["a.wav"])
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        match_csv(segments, tmp_path / "a.csv")


def test_a_folder_or_csv_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: is not a folder"):
        match_csv(tmp_path / "nowhere", tmp_path / "a.csv")
    with pytest.raises(InputError, match="a.csv: no such file; correct the path"):
        match_csv(folder(tmp_path / "segments", []), tmp_path / "a.csv")


def test_a_real_session_numbered_among_the_kept_is_found_again(real_data, tmp_path):
    lines = (real_data / "aishell4" / "data_fixed.csv").read_text().splitlines()[1:]
    rows = [os.path.basename(line.split(",")[0]) for line in lines]
    stems = [row.rsplit("_", 1)[0] for row in rows]
    running = [f"{stem}_{index:05d}.wav" for index, stem in enumerate(stems)]
    report = match_names(running, rows)
    assert dict(report.renamed) == dict(zip(running, rows, strict=True))
