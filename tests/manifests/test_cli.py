"""Each command once as a user types it, and once with what the user can repair."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner

from spk.common.commands import LEFT_OUT
from spk.manifests.cli import main
from spk.manifests.split_record import read_record
from spk.manifests.table import read_table


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    return call


@pytest.fixture
def annotated(tmp_path):
    lines = [
        f"SPEAKER L_R001S01C01 1 {start} {length} <NA> <NA> {name} <NA> <NA>\n"
        for name, offset in (("001-M", 0), ("002-F", 6))
        for start, length in [(offset + 12 * k, 1 + k % 3) for k in range(12)]
    ]
    (tmp_path / "rttm").mkdir()
    (tmp_path / "rttm" / "L_R001S01C01.rttm").write_text("".join(lines))
    return tmp_path / "rttm"


def test_rttm_makes_a_table_and_says_that_ends_were_not_checked(run, annotated):
    done = run("rttm", annotated, "t.csv")
    assert done.stdout == (
        "t.csv: 24 segments, 1 session, 2 speakers, 0.01 h, 1 note (unchecked: 1); "
        "see t.csv.notes.csv\n"
    )
    assert done.exit_code == 0
    assert len(read_table("t.csv")) == 24


def test_a_bad_line_is_one_line_and_exit_code_1_or_dropped(run, annotated):
    with open(annotated / "L_R001S01C01.rttm", "a") as file:
        file.write("SPEAKER L_R001S01C01 1 5 -0.2 <NA> <NA> 001-M <NA> <NA>\n")
    done = run("rttm", annotated, "t.csv")
    assert done.exit_code == 1
    assert done.output == (
        "L_R001S01C01.rttm, line 25: duration is '-0.2' s, expected > 0; "
        "delete or correct the line, or pass --skip-bad\n"
    )
    done = run("rttm", annotated, "t.csv", "--skip-bad")
    assert (done.exit_code, "2 notes (dropped: 1, unchecked: 1)" in done.output) == (LEFT_OUT, True)
    assert list(pd.read_csv("t.csv.notes.csv")["kind"]) == ["dropped", "unchecked"]


def test_textgrid_and_csv_make_tables(run, annotated, tmp_path):
    grid = (
        '"ooTextFile"\n"TextGrid"\n0\n5\n<exists>\n1\n"IntervalTier"\n"001-M"\n0\n5\n1\n0\n5\n"a"\n'
    )
    (tmp_path / "s1.TextGrid").write_text(grid)
    assert run("textgrid", "s1.TextGrid", "g.parquet").exit_code == 0
    assert list(read_table("g.parquet")["speaker"]) == ["s1_001-M"]
    (tmp_path / "data.csv").write_text(
        "path,label\nL_R001S01C01_001-M_0002.wav,L_R001S01C01_001-M\n"
    )
    assert run("csv", "data.csv", "c.csv", "--rttm-dir", annotated).exit_code == 0
    assert list(read_table("c.csv")["start"]) == [24.0]
    missing = run("csv", "data.csv", "d.csv")
    assert (missing.exit_code, missing.output.count("\n")) == (1, 1)


def test_select_tells_what_each_rule_dropped_and_lists_it(run, annotated):
    run("rttm", annotated, "t.csv", "--scope", "series")
    done = run("select", "t.csv", "s.csv", "--min-seconds", "1.5", "--max-seconds", "2.5")
    assert done.stdout.splitlines() == [
        "min_seconds 1.5: dropped 8",
        "max_seconds 2.5: dropped 8",
        "s.csv: 8 segments kept",
    ]
    assert len(pd.read_csv("s.csv.notes.csv")) == 16
    assert run("select", "t.csv", "s.csv", "--min-seconds", "9").exit_code == 1


def test_split_records_how_and_the_record_follows_the_rows(run, annotated):
    run("rttm", annotated, "t.csv")
    done = run("split", "t.csv", "c.csv", "--gap", "0.5")
    assert done.output.startswith("c.csv: chronological: 16 train, 4 valid, 4 test, 0 purged")
    assert read_record("c.csv")["parameters"]["gap"] == 0.5
    run("select", "c.csv", "s.csv", "--min-seconds", "1.5")
    assert read_record("s.csv")["method"] == "chronological"
    refused = run("rttm", annotated, "s.csv")
    assert (refused.exit_code, read_record("s.csv")["method"]) == (1, "chronological")
    run("rttm", annotated, "s.csv", "--overwrite")
    assert read_record("s.csv") is None
    refused = run("split", "t.csv", "c.csv", "--folds", "4")
    assert refused.exit_code == 1
    assert "folds: is not a parameter of chronological" in refused.output


def test_leaks_and_describe_print_and_write_a_table(run, annotated, tmp_path):
    run("rttm", annotated, "t.csv")
    assert run("leaks", "t.csv").exit_code == 1
    run("split", "t.csv", "r.csv", "--method", "random")
    told = run("leaks", "r.csv", "-o", "leaks.csv").output
    assert told.startswith("r.csv: random (leaky): 19 train, 0 valid, 4 test, 1 purged (1 roll ")
    assert "within_0.5" in told
    (tmp_path / "r.csv.split.json").unlink()
    assert run("leaks", "r.csv").output.startswith("r.csv: nobody wrote down how it was split\n")
    assert list(pd.read_csv("leaks.csv")["session"]) == ["L_R001S01C01", "all"]
    assert "minutes" in run("describe", "t.csv", "-o", "d.csv").output
    assert list(pd.read_csv("d.csv")["segments"]) == [24, 24]
    refused = run("describe", "t.csv", "-o", "d.parquet")
    assert (refused.exit_code, refused.output) == (
        1,
        "d.parquet: suffix is '.parquet', expected .csv; rename it\n",
    )


def test_demo_cut_and_match_work_together_in_both_spellings(run, tmp_path):
    assert run("demo", "d", "--sessions", "1", "--minutes", "1", "--channels", "1").exit_code == 0
    done = run("cut", "--rttm_dir", "d/TextGrid", "--pcm_dir", "d/wav", "--output_dir", "seg")
    assert done.exit_code == 0
    listed = pd.read_csv("seg/segments.csv")
    assert all((tmp_path / path).is_file() for path in listed["path"])
    assert f"{len(listed)} files written, 0 already complete" in done.output
    run("rttm", "d/TextGrid", "t.csv", "--audio-root", "d/wav")
    run("select", "t.csv", "s.csv", "--min-seconds", "1.5")
    again = run("cut", "s.csv", "seg", "--audio-root", "d/wav")
    assert f"0 files written, {len(listed)} already complete" in again.output
    moved = tmp_path / listed["path"][0]
    moved.rename(tmp_path / "gone.wav")
    told = run("match-csv", "--segments_dir", "seg", "--csv_path", "seg/segments.csv", "--dry-run")
    assert f"missing: {moved.name}\n" in told.output
    assert f"0 renamed, {len(listed) - 1} kept, 1 missing, 0 extra, 0 ambiguous" in told.output
    assert run("cut", "s.csv").exit_code == 1
    assert run("match-csv", "--segments_dir", "none", "--csv_path", "s.csv").exit_code == 1
    assert run("demo", "d", "--minutes", "0").exit_code == 1


@pytest.fixture
def recorded(tmp_path):
    (tmp_path / "wav").mkdir()
    soundfile.write(tmp_path / "wav" / "L_R001S01C01.flac", np.zeros(160 * 16000), 16000)
    return tmp_path / "wav"


def test_the_table_of_a_cut_keeps_how_it_was_split(run, annotated, recorded):
    run("rttm", annotated, "t.csv")
    run("split", "t.csv", "r.csv", "--method", "random")
    assert run("cut", "r.csv", "seg", "--audio-root", recorded).exit_code == 0
    assert read_record("seg/segments.table.csv") == read_record("r.csv")
    assert run("cut", "t.csv", "seg", "--audio-root", recorded).exit_code == 0
    assert read_record("seg/segments.table.csv") is None


def test_what_the_references_spelling_leaves_out_is_reported_and_listed(run, annotated, recorded):
    words = ("--rttm_dir", annotated, "--pcm_dir", recorded, "--output_dir", "seg")
    told = run("cut", *words).stdout.splitlines()
    assert told[-2].startswith("seg: 16 files written")
    assert told[-1] == (
        "seg/segments.csv: 16 segments, 1 session, 2 speakers, 0.01 h, "
        "8 notes (min_seconds 1.5: 8); see seg/segments.csv.notes.csv"
    )
    assert len(pd.read_csv("seg/segments.csv.notes.csv")) == 8
    assert run("cut", *words, "--format", "flac").exit_code == 1
    assert "24 segments" in run("cut", *words[:4], "--output_dir", "all", "--min-seconds", 0).output


@pytest.mark.parametrize(
    "words",
    [
        ("t.csv", "seg", "--min-seconds", "3"),
        ("t.csv", "seg", "--rttm_dir", "rttm"),
        ("--rttm_dir", "rttm", "--output_dir", "seg"),
        ("t.csv",),
        (),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(run, annotated, recorded, words):
    run("rttm", annotated, "t.csv")
    done = run("cut", *words)
    assert done.exit_code == 1
    shown = [word.replace("_", "-") for word in words if word.startswith("--")]
    assert "spk-manifests cut: source is" in done.output
    assert all(word in done.output for word in shown)


@pytest.mark.parametrize(
    "words",
    [
        ("rttm", "rttm", "file/t.csv"),
        ("select", "t.csv", "file/t.csv"),
        ("split", "t.csv", "file/t.csv"),
        ("describe", "t.csv", "-o", "file/t.csv"),
        ("cut", "t.csv", "file", "--audio-root", "wav"),
        ("demo", "file", "--minutes", "1", "--sessions", "1"),
    ],
    ids=lambda words: words[0],
)
def test_a_place_that_cannot_be_written_is_one_line(run, annotated, recorded, tmp_path, words):
    run("rttm", annotated, "t.csv")
    (tmp_path / "file").write_text("")
    done = run(*words)
    told = done.output.splitlines()[-1]
    assert told.startswith("file")
    assert "cannot be written" in told
    assert done.exit_code == 1
    assert (tmp_path / "file").read_text() == ""


def test_match_csv_shows_ten_of_a_kind_and_writes_all_where_asked(run, tmp_path):
    (tmp_path / "seg").mkdir()
    rows = "".join(f"seg/s_1-M_{line:04d}.wav,s_1-M\n" for line in range(12))
    (tmp_path / "data.csv").write_text("path,label\n" + rows)
    typed = ("match-csv", "--segments_dir", "seg", "--csv_path", "data.csv")
    lines = run(*typed, "-o", "all.csv").output.splitlines()
    assert lines[:2] == ["missing: s_1-M_0000.wav", "missing: s_1-M_0001.wav"]
    assert lines[10] == "missing: 2 more, listed by --output FILE"
    assert list(pd.read_csv("all.csv")["kind"]) == ["missing"] * 12


def test_the_real_reference_csv_is_regenerated_from_the_real_rttms(run, real_data):
    rttms = real_data / "aishell4" / "rttm"
    run("cut", "--rttm_dir", rttms, "--output_dir", "./data/segments", "--listing-only")
    ours = pd.read_csv("data/segments/segments.csv")
    theirs = pd.read_csv(real_data / "aishell4" / "data_fixed.csv")
    parts = [
        rows.assign(session=rows["label"].str.rsplit("_", n=1).str[0]) for rows in (ours, theirs)
    ]
    both = set(parts[0]["session"]) & set(parts[1]["session"])
    assert len(both) == 4
    ours, theirs = (rows[rows["session"].isin(both)].reset_index(drop=True) for rows in parts)
    assert len(theirs) == 1239
    pd.testing.assert_frame_equal(ours, theirs)
