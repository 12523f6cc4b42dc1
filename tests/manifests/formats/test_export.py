"""Tables are exported to each format, and each format gives the table back."""

import pandas as pd
import pytest
from click.testing import CliRunner

from spk.manifests.cli import main
from spk.manifests.formats.export import local_speakers
from spk.manifests.formats.registry import FORMATS
from spk.manifests.table import read_table

LINE = "SPEAKER {} 1 {} {} <NA> <NA> {} <NA> <NA>\n"
TURNS = [("S1", 0.5, 2.0, "Anna"), ("S1", 1.25, 0.75, "001"), ("S2", 3.125, 1.0, "Anna")]
COMMANDS = {"seglst": "whisperx", "csv": "turns"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        return CliRunner().invoke(main, [str(word) for word in words])

    return call


@pytest.fixture
def table(run, tmp_path):
    (tmp_path / "a.rttm").write_text("".join(LINE.format(*turn) for turn in TURNS))
    assert run("rttm", "a.rttm", "t.csv").exit_code == 0
    return read_table("t.csv")


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_exported_makes_the_same_table(run, table, name):
    done = run("export", "t.csv", "out", "--format", name)
    assert done.exit_code == 0, done.output
    done = run(COMMANDS.get(name, name), "out", "back.csv")
    assert done.exit_code == 0, done.output
    columns = ["segment_id", "start", "end", "speaker", "session"]
    assert read_table("back.csv")[columns].equals(table[columns])


def test_the_command_says_what_it_wrote(run, table):
    assert run("export", "t.csv", "out.rttm").output == "out.rttm: 3 turns in 1 file\n"
    assert run("export", "t.csv", "o", "--format", "srt").output == "o: 3 turns in 2 files\n"
    done = run("export", "t.csv", "k", "--format", "kaldi")
    assert done.stdout == "k: 3 turns in 1 folder\n"
    assert done.stderr == (
        "k: no wav.scp, since no recordings are known; pass --audio-root for one\n"
    )
    done = run("export", "t.csv", "out.srt")
    assert (done.exit_code, done.output) == (
        1,
        "out.srt: holds one session, the turns are of 2, first 'S1' and 'S2', expected one; name a "
        "folder and pass --format srt\n",
    )


def test_a_table_without_rows_is_no_file(run, table):
    table[:0].to_csv("none.csv", index=False)
    assert run("export", "none.csv", "o", "--format", "srt").output == "o: 0 turns in 0 files\n"
    assert run("export", "none.csv", "o.rttm").output == "o.rttm: 0 turns in 1 file\n"


def test_a_file_that_is_not_named_after_its_session_is_told(run, table, tmp_path):
    table[table["session"] == "S2"].to_csv("one.csv", index=False)
    assert run("export", "one.csv", "x/S2.srt").stderr == ""
    assert run("export", "one.csv", "x.srt").stderr == (
        "x.srt: does not name its session, 'S2'; it will be read as 'x'\n"
    )


def test_texts_pass_from_one_format_through_a_table_to_another(run, tmp_path):
    (tmp_path / "S1.json").write_text(
        '{"segments": [{"start": 1, "end": 2, "speaker": "A", "text": " Hello, \\"you\\"\\n"}]}'
    )
    assert run("whisperx", "S1.json", "t.parquet").exit_code == 0
    assert run("export", "t.parquet", "S1.vtt").exit_code == 0
    assert (tmp_path / "S1.vtt").read_text() == (
        'WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n<v A>Hello, "you"</v>\n'
    )


def test_labels_lose_their_session_unless_they_are_wanted_whole(run, table, tmp_path):
    run("export", "t.csv", "full.rttm", "--full-labels")
    assert "S1_Anna" in (tmp_path / "full.rttm").read_text()


@pytest.mark.parametrize(
    ("labels", "local"),
    [
        (["S1_A", "S1_B"], ["A", "B"]),
        (["S1_A", "A"], ["S1_A", "A"]),
        (["S1_", "Anna"], ["S1_", "Anna"]),
        (["S1_S1_A", "S1_A"], ["S1_S1_A", "A"]),
    ],
)
def test_no_two_speakers_become_one(labels, local):
    table = pd.DataFrame({"session": "S1", "speaker": labels})
    assert local_speakers(table).tolist() == local


def test_recordings_are_listed_where_their_folder_is_named(run, table, tmp_path):
    run("export", "t.csv", "k", "--format", "kaldi", "--audio-root", "wav")
    assert (tmp_path / "k" / "wav.scp").read_text() == "S1 wav/S1.flac\nS2 wav/S2.flac\n"
    run("export", "t.csv", "o.csv", "--audio-root", "wav")
    assert (tmp_path / "o.csv").read_text().splitlines()[1] == "wav/S1.flac,0.5,2.5,Anna"


def test_recordings_with_absolute_paths_are_listed_without_their_folder(run, table, tmp_path):
    audio = [f"{tmp_path}/wav/{name}.flac" for name in table["session"]]
    table.assign(audio=audio).to_csv("absolute.csv", index=False)
    run("export", "absolute.csv", "k", "--format", "kaldi")
    assert (tmp_path / "k" / "wav.scp").read_text() == (
        f"S1 {tmp_path}/wav/S1.flac\nS2 {tmp_path}/wav/S2.flac\n"
    )


def test_a_table_of_cut_files_is_refused(run, table):
    table.assign(audio=[f"{n}.wav" for n in range(3)]).to_csv("cut.csv", index=False)
    done = run("export", "cut.csv", "o.rttm")
    assert done.exit_code == 1
    assert "lies in several audio files" in done.output


def test_files_of_a_folder_are_not_replaced_unless_that_is_wanted(run, table, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "S1.vtt").write_text("mine")
    done = run("export", "t.csv", "o", "--format", "vtt")
    assert (done.exit_code, (tmp_path / "o" / "S1.vtt").read_text()) == (1, "mine")
    assert "S1.vtt: exists with other content" in done.output
    assert run("export", "t.csv", "o", "--format", "vtt", "--overwrite").exit_code == 0
    assert (tmp_path / "o" / "S1.vtt").read_text().startswith("WEBVTT")


def test_the_table_itself_is_never_replaced(run, table, tmp_path):
    (tmp_path / "t.csv").rename(tmp_path / "S1.csv")
    before = (tmp_path / "S1.csv").read_text()
    for out in (".", "S1.csv"):
        for option in ((), ("--overwrite",)):
            done = run("export", "S1.csv", out, "--format", "csv", *option)
            assert done.exit_code == 1
            assert (tmp_path / "S1.csv").read_text() == before


def test_the_form_in_which_cues_name_speakers_is_told(run, tmp_path):
    cue = "00:00:01,000 --> 00:00:02,000\n"
    (tmp_path / "S1.srt").write_text(f"{cue}Anna: x\n\n{cue.replace('01', '03')}y\n")
    done = run("srt", "S1.srt", "t.csv")
    assert done.stderr.splitlines()[0] == (
        "S1.srt: speakers, by the form 'colon': 1 'Anna'; --speakers chooses the form"
    )
    done = run("srt", "S1.srt", "u.csv", "--speakers", "brackets")
    assert done.exit_code == 1
    assert "(first left out: 2 lines without speaker give no turn)" in done.output


def test_a_bad_segment_is_one_line_and_exit_code_1_or_dropped(run, tmp_path):
    (tmp_path / "S1.json").write_text(
        '[{"speaker": "A", "start": 1, "end": 0}, {"speaker": "A", "start": 1, "end": 2}]'
    )
    done = run("whisperx", "S1.json", "t.csv")
    assert (done.exit_code, done.output) == (
        1,
        "S1.json, segment 1: duration is '-1' s, expected > 0; delete or correct the line, or pass "
        "--skip-bad\n",
    )
    assert run("whisperx", "S1.json", "t.csv", "--skip-bad").exit_code == 3
    assert len(read_table("t.csv")) == 1
