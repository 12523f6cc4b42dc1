"""Each format against the library that people have: it reads what we wrote, we what it writes."""

import datetime
import subprocess

import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.manifests.formats.registry import read_turns, write_turns
from spk.manifests.formats.uem import read_uem, write_uem

EXACT = 1e-9  # s; times that are written as they are
MILLISECOND = 0.0005 + 1e-9  # s; half of what a time was rounded to
SAMPLE = 1 / 8000  # s; lhotse moves a cut's and a Kaldi utterance's times to whole samples
TABLE = pd.DataFrame(
    [
        ("S1", "Anna", 0.5, 2.25, "hello & <b>you</b>"),
        ("S1", "王小明", 1.125, 3.0, "你好"),
        ("S1", "Anna", 4.0004, 5.4996, "again"),
        ("S2", "001-M", 10.1, 11.0, 'a "quoted" word'),
    ],
    columns=["session", "speaker", "start", "end", "text"],
)
FIRST = TABLE[TABLE["session"] == "S1"]


def rows(table, *columns):
    return sorted(table[list(columns)].itertuples(index=False, name=None))


def ours(path, **options):
    """Return (speaker, start, end, text) of what we read, sorted."""
    turns = read_turns(path, **options).turns
    return sorted((turn.speaker, turn.start, turn.end, turn.text) for turn in turns)


def same(read_back, expected, tolerance):
    """Return whether rows of names and times are equal, times within a tolerance (s)."""
    approximate = [
        tuple(pytest.approx(v, abs=tolerance) if isinstance(v, float) else v for v in row)
        for row in expected
    ]
    assert sorted(read_back) == approximate
    return True


EXPECTED = rows(FIRST, "speaker", "start", "end")
WITH_TEXT = rows(FIRST, "speaker", "start", "end", "text")


def test_pyannote_reads_our_rttm_and_we_read_what_it_writes(tmp_path):
    pytest.importorskip("pyannote.database")
    from pyannote.database.util import load_rttm

    write_turns(TABLE, tmp_path / "a.rttm")
    annotations = load_rttm(tmp_path / "a.rttm")
    assert set(annotations) == {"S1", "S2"}
    theirs = [(who, s.start, s.end) for s, _, who in annotations["S1"].itertracks(yield_label=True)]
    assert same(theirs, EXPECTED, 1e-6)
    with open(tmp_path / "b.rttm", "w", encoding="utf-8") as file:
        annotations["S1"].write_rttm(file)
    assert same([row[:3] for row in ours(tmp_path / "b.rttm")], EXPECTED, 0.001)


def test_pyannote_reads_our_uem_and_we_read_what_it_writes(tmp_path):
    pytest.importorskip("pyannote.database")
    from pyannote.database.util import load_uem

    spans = {"S1": [(0.0, 15.5), (25.125, 30.4)], "S2": [(4.5, 13.24)]}
    write_uem(spans, tmp_path / "a.uem")
    theirs = load_uem(tmp_path / "a.uem")
    assert {name: [(s.start, s.end) for s in line] for name, line in theirs.items()} == spans
    with open(tmp_path / "b.uem", "w", encoding="utf-8") as file:
        for line in theirs.values():
            line.write_uem(file)
    assert read_uem(tmp_path / "b.uem") == spans


def test_praatio_reads_our_textgrid(tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid")
    write_turns(FIRST, tmp_path / "S1.TextGrid")
    grid = textgrid.openTextgrid(str(tmp_path / "S1.TextGrid"), includeEmptyIntervals=False)
    theirs = [
        (name, float(e.start), float(e.end), e.label)
        for name in grid.tierNames
        for e in grid.getTier(name).entries
    ]
    assert same(theirs, WITH_TEXT, EXACT)


@pytest.mark.parametrize("form", ["short_textgrid", "long_textgrid"])
def test_we_read_what_praatio_writes(tmp_path, form):
    textgrid = pytest.importorskip("praatio.textgrid")
    grid = textgrid.Textgrid()
    for speaker, spoken in FIRST.groupby("speaker"):
        entries = list(spoken[["start", "end", "text"]].itertuples(index=False, name=None))
        grid.addTier(textgrid.IntervalTier(speaker, entries, 0, 6))
    grid.save(str(tmp_path / "S1.TextGrid"), format=form, includeBlankSpaces=True)
    assert same(ours(tmp_path / "S1.TextGrid"), WITH_TEXT, 1e-5)


def test_pympi_reads_our_eaf_and_we_read_what_it_writes(tmp_path):
    pympi = pytest.importorskip("pympi")
    write_turns(FIRST, tmp_path / "S1.eaf")
    eaf = pympi.Elan.Eaf(str(tmp_path / "S1.eaf"))
    theirs = [
        (tier, start / 1000, end / 1000, text)
        for tier in eaf.get_tier_names()
        for start, end, text in (row[:3] for row in eaf.get_annotation_data_for_tier(tier))
    ]
    assert same(theirs, WITH_TEXT, MILLISECOND)
    participants = [eaf.get_parameters_for_tier(t)["PARTICIPANT"] for t in eaf.get_tier_names()]
    assert participants == list(eaf.get_tier_names())
    made = pympi.Elan.Eaf()
    made.remove_tier("default")
    for speaker, start, end, text in theirs:
        if speaker not in made.get_tier_names():
            made.add_tier(speaker)
        made.add_annotation(speaker, round(start * 1000), round(end * 1000), text)
    made.to_file(str(tmp_path / "b.eaf"))
    assert same(ours(tmp_path / "b.eaf"), WITH_TEXT, MILLISECOND)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # audformat's own, of pandas 3.1
def test_audformat_reads_our_csv_and_we_read_its_table(tmp_path):
    audformat = pytest.importorskip("audformat")
    write_turns(TABLE, tmp_path / "a.csv")
    frame = audformat.utils.read_csv(tmp_path / "a.csv", as_dataframe=True).reset_index()
    times = frame[["start", "end"]].apply(lambda column: column.dt.total_seconds())
    assert same(
        rows(frame.assign(**times), "file", "speaker", "start", "end"),
        rows(TABLE, "session", "speaker", "start", "end"),
        EXACT,
    )
    files = [f"audio/{session}.wav" for session in TABLE["session"]]
    index = audformat.segmented_index(files, TABLE["start"], TABLE["end"])
    database = audformat.Database("meetings")
    database.schemes["speaker"] = audformat.Scheme("str")
    database["turns"] = audformat.Table(index)
    database["turns"]["speaker"] = audformat.Column(scheme_id="speaker")
    database["turns"]["speaker"].set(TABLE["speaker"].to_numpy())
    database["turns"].save(tmp_path / "turns", storage_format="csv")
    turns = read_turns(tmp_path / "turns.csv").turns
    assert same(
        [(t.session, t.speaker, t.start, t.end) for t in turns],
        rows(TABLE, "session", "speaker", "start", "end"),
        EXACT,
    )


def test_webvtt_py_reads_our_vtt_and_we_read_what_it_writes(tmp_path):
    webvtt = pytest.importorskip("webvtt")
    write_turns(FIRST, tmp_path / "S1.vtt")
    captions = webvtt.read(tmp_path / "S1.vtt").captions
    theirs = [(c.voice, c.start_in_seconds, c.end_in_seconds) for c in captions]
    assert [voice for voice, _, _ in theirs] == list(FIRST.sort_values("start")["speaker"])
    assert [c.start for c in captions] == ["00:00:00.500", "00:00:01.125", "00:00:04.000"]
    made = webvtt.WebVTT()
    for row in FIRST[["start", "end", "speaker"]].itertuples():
        clocks = [f"00:00:{time:06.3f}" for time in (row.start, row.end)]
        made.captions.append(webvtt.Caption(*clocks, f"<v {row.speaker}>hello</v>"))
    made.save(tmp_path / "b.vtt")
    assert same([row[:3] for row in ours(tmp_path / "b.vtt")], EXPECTED, MILLISECOND)


def test_srt_reads_our_srt_and_we_read_what_it_writes(tmp_path):
    srt = pytest.importorskip("srt")
    write_turns(FIRST, tmp_path / "S1.srt")
    cues = list(srt.parse((tmp_path / "S1.srt").read_text(encoding="utf-8")))
    theirs = [(*cue.content.removeprefix("[").split("]: ", 1), cue.start, cue.end) for cue in cues]
    read_back = [
        (who, s.total_seconds(), e.total_seconds(), supervisions)
        for who, supervisions, s, e in theirs
    ]
    assert same(read_back, WITH_TEXT, MILLISECOND)
    assert [cue.index for cue in cues] == [1, 2, 3]
    made = [
        srt.Subtitle(
            n, *(datetime.timedelta(seconds=t) for t in (r.start, r.end)), f"{r.speaker}: x"
        )
        for n, r in enumerate(FIRST.itertuples(), 1)
    ]
    (tmp_path / "b.srt").write_text(srt.compose(made), encoding="utf-8")
    cut_off = 0.001  # srt writes whole milliseconds and does not round them
    assert same([row[:3] for row in ours(tmp_path / "b.srt")], EXPECTED, cut_off)


@pytest.fixture
def recordings(tmp_path):
    """Return a recording of 12 s for each session."""
    (tmp_path / "wav").mkdir()
    files = {name: tmp_path / "wav" / f"{name}.wav" for name in ("S1", "S2")}
    for file in files.values():
        soundfile.write(file, np.zeros((12 * 8000, 2)), 8000)
    return files


def test_lhotse_reads_our_manifests_and_we_read_its_supervisions_and_cuts(tmp_path, recordings):
    lhotse = pytest.importorskip("lhotse")
    from lhotse.qa import validate_recordings_and_supervisions

    write_turns(TABLE, tmp_path / "out", "lhotse", audio=recordings)
    supervisions = lhotse.SupervisionSet.from_file(tmp_path / "out" / "supervisions.jsonl.gz")
    audio = lhotse.RecordingSet.from_file(tmp_path / "out" / "recordings.jsonl.gz")
    validate_recordings_and_supervisions(audio, supervisions)
    assert {r.id: (r.duration, r.num_channels) for r in audio} == {"S1": (12, 2), "S2": (12, 2)}
    expected = rows(TABLE, "session", "speaker", "start", "end", "text")
    assert same(
        [(s.recording_id, s.speaker, s.start, s.end, s.text) for s in supervisions], expected, 1e-8
    )

    for name in ("b.jsonl.gz", "b.jsonl", "b.json"):
        supervisions.to_file(tmp_path / name)
        turns = read_turns(tmp_path / name).turns
        read_back = [(t.session, t.speaker, t.start, t.end, t.text) for t in turns]
        assert same(read_back, expected, 1e-8)
    cuts = lhotse.CutSet.from_manifests(audio, supervisions).trim_to_supervisions(
        keep_overlapping=False
    )
    assert len({cut.start for cut in cuts}) == 4
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    turns = read_turns(tmp_path / "cuts.jsonl.gz").turns
    assert same([(t.session, t.speaker, t.start, t.end, t.text) for t in turns], expected, SAMPLE)


def test_lhotse_reads_our_kaldi_directory_and_we_read_its(tmp_path, recordings):
    pytest.importorskip("lhotse")
    from lhotse.kaldi import export_to_kaldi, load_kaldi_data_dir

    write_turns(TABLE, tmp_path / "data", "kaldi", audio=recordings)
    (tmp_path / "data" / "reco2dur").write_text("S1 12.0\nS2 12.0\n")
    audio, supervisions, _ = load_kaldi_data_dir(tmp_path / "data", 8000)
    expected = rows(TABLE, "session", "speaker", "start", "end", "text")
    assert same(
        [(s.recording_id, s.speaker, s.start, s.end, s.text) for s in supervisions],
        expected,
        SAMPLE,
    )
    export_to_kaldi(audio, supervisions, tmp_path / "back")
    turns = read_turns(tmp_path / "back").turns
    assert same([(t.session, t.speaker, t.start, t.end, t.text) for t in turns], expected, SAMPLE)


def test_sort_of_the_system_finds_a_kaldi_directory_in_order(tmp_path):
    names = ["001", "001-M", "A", "A_1", "A b", "Zoë", "王", "a", "~"]
    table = pd.DataFrame(
        [(s, name, n / 7, n / 7 + 1) for s in ("S1", "S-1") for n, name in enumerate(names)],
        columns=["session", "speaker", "start", "end"],
    )
    write_turns(table, tmp_path / "data", "kaldi", audio={"S1": "S1.wav", "S-1": "b c.wav"})
    for file in ("segments", "utt2spk", "spk2utt", "wav.scp"):
        keys = ["-k1,1"] if file != "utt2spk" else ["-k2,2", "-k1,1"]
        for key in (["-k1,1"], keys):
            command = ["sort", "-c", "-u", *key, str(tmp_path / "data" / file)]
            assert subprocess.run(command, check=False, env={"LC_ALL": "C"}).returncode == 0, file
