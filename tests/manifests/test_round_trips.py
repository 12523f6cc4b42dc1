"""What a command writes is read by the command that reads it, whatever people are called."""

import json
import unicodedata

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from spk.common.names import normal_name
from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter
from spk.manifests.cli import main
from spk.manifests.cutting.rename import match_names
from spk.manifests.table import read_predictions, read_table, segment_id, write_predictions

FEW = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # six commands an example: shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LONG = "".join(chr(0x4E00 + 37 * n % 20000) for n in range(80))
SPEAKERS = [
    "A",
    "A_1",
    "A_1_2",
    "1",
    "001",
    "001-M",
    "spk_1",
    "_x",
    "王小明",
    "Jörg",
    "Zoë_é",
    LONG,
]
SESSIONS = ["S1", "S1_2", "S1_A", "7", "L_R001S01C01", "会议", "a.b", LONG[::-1]]
FORMS = st.sampled_from(["NFC", "NFD"])
TURNS = st.lists(
    st.tuples(st.sampled_from(SESSIONS), st.sampled_from(SPEAKERS), FORMS), min_size=1, max_size=8
)
RANDOM = (
    st.text("AB_1 -.é王", min_size=1, max_size=6)
    .map(normal_name)
    .filter(lambda name: name and ".." not in name and name[0] != "." and " " not in name)
)
RANDOM_TURNS = st.lists(st.tuples(RANDOM, RANDOM, FORMS), min_size=1, max_size=6)


def run(*words):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def annotate(folder, turns):
    """Write one RTTM and a recording per session; turns follow one another."""
    (folder / "wav").mkdir(parents=True)
    lines = []
    for n, (session, speaker, form) in enumerate(turns):
        names = [unicodedata.normalize(form, name) for name in (session, speaker)]
        lines.append(f"SPEAKER {names[0]} 1 {n / 10:.1f} 0.1 <NA> <NA> {names[1]} <NA> <NA>\n")
    (folder / "all.rttm").write_text("".join(lines), encoding="utf-8")
    for session in {session for session, _, _ in turns}:
        soundfile.write(folder / "wav" / f"{session}.wav", [0.1] * 16000, 16000)


def rows(path, *columns):
    return sorted(read_table(path)[list(columns)].itertuples(index=False, name=None))


def check_cut_and_csv(folder, turns):
    annotate(folder, turns)
    turns = [(normal_name(session), normal_name(speaker)) for session, speaker, _ in turns]
    expected = sorted((session, f"{session}_{speaker}") for session, speaker in turns)
    run("rttm", folder / "all.rttm", folder / "t.csv", "--audio-root", folder / "wav")
    assert rows(folder / "t.csv", "session", "speaker") == expected
    run("cut", folder / "t.csv", folder / "cut", "--audio-root", folder / "wav")
    files = sorted(file.name for file in (folder / "cut").glob("*.wav"))
    assert len(files) == len(turns)
    assert max(len(name.encode()) for name in files) <= 245
    listing = folder / "cut" / "segments.csv"
    run("csv", listing, folder / "files.csv", "--audio-root", "/")
    assert rows(folder / "files.csv", "session", "speaker") == expected
    back = folder / "back.csv"
    run("csv", listing, back, "--rttm-dir", folder, "--audio-root", folder / "wav")
    names = ("segment_id", "start", "end", "speaker", "session", "line")
    assert rows(back, *names) == rows(folder / "t.csv", *names)
    (folder / "cut" / "segments.table.csv").unlink()
    run("csv", listing, back, "--rttm-dir", folder, "--audio-root", folder / "wav")
    assert rows(back, *names) == rows(folder / "t.csv", *names), "the RTTMs alone tell the names"
    done = run("match-csv", "--segments-dir", folder / "cut", "--csv-path", listing)
    assert done.endswith(f"0 renamed, {len(files)} kept, 0 missing, 0 extra, 0 ambiguous\n")


@FEW
@given(turns=TURNS)
def test_every_label_that_a_cut_writes_is_read_back(tmp_path_factory, turns):
    check_cut_and_csv(tmp_path_factory.mktemp("cut"), turns)


@FEW
@given(turns=RANDOM_TURNS)
def test_any_label_that_a_cut_writes_is_read_back(tmp_path_factory, turns):
    check_cut_and_csv(tmp_path_factory.mktemp("any"), turns)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("scope", ["session", "corpus"])
def test_labels_pass_through_tables_of_both_kinds_and_a_cut_without_lines(tmp_path, suffix, scope):
    turns = [(session, speaker, "NFC") for session in SESSIONS[:3] for speaker in SPEAKERS]
    annotate(tmp_path, [(s, p, f) for s, p, f in turns if len(turns) < 40][:9])
    table, cut = tmp_path / f"t.{suffix}", tmp_path / "cut"
    run("rttm", tmp_path / "all.rttm", table, "--audio-root", tmp_path / "wav", "--scope", scope)
    for step in ("select", "split"):
        run(step, table, tmp_path / f"{step}.{suffix}")
        assert rows(tmp_path / f"{step}.{suffix}", "speaker") == rows(table, "speaker")
    read_table(table).drop(columns="line").to_csv(tmp_path / "bare.csv", index=False)
    run("cut", tmp_path / "bare.csv", cut, "--audio-root", tmp_path / "wav")
    run("csv", cut / "segments.csv", tmp_path / "back.csv", "--audio-root", "/")
    assert rows(tmp_path / "back.csv", "speaker") == rows(table, "speaker")


def test_labels_with_blanks_inside_pass_from_a_textgrid_to_cut_files_and_back(tmp_path):
    (tmp_path / "wav").mkdir()
    soundfile.write(tmp_path / "wav" / "My talk 1.wav", [0.1] * 32000, 16000)
    tiers = "".join(
        f'"IntervalTier" "{name}" 0 2 2 0 1 "x" 1 2 ""\n'
        for name in ("Anna Lee", "Anna Lee_1", "B 1")
    )
    (tmp_path / "My talk 1.TextGrid").write_text(
        f'"ooTextFile"\n"TextGrid"\n0 2 <exists> 3\n{tiers}'
    )
    grid, wav = tmp_path / "My talk 1.TextGrid", tmp_path / "wav"
    run("textgrid", grid, tmp_path / "t.csv", "--audio-root", wav)
    run("cut", tmp_path / "t.csv", tmp_path / "cut", "--audio-root", wav)
    run("csv", tmp_path / "cut" / "segments.csv", tmp_path / "b.csv", "--audio-root", "/")
    assert rows(tmp_path / "b.csv", "session", "speaker") == rows(
        tmp_path / "t.csv", "session", "speaker"
    )


@pytest.mark.parametrize("label", ["S1_spk_1", "a_b_c_d", "S1__1"])
def test_an_ambiguous_label_is_refused_without_an_option(tmp_path, label):
    soundfile.write(tmp_path / f"{label}_0003.wav", [0.1] * 16000, 16000)
    (tmp_path / "l.csv").write_text(f"path,label\n{label}_0003.wav,{label}\n")
    words = ["csv", tmp_path / "l.csv", tmp_path / "t.csv", "--audio-root", tmp_path]
    done = CliRunner().invoke(main, list(map(str, words)))
    session, speaker = label.rsplit("_", 1)
    assert done.exit_code == 1
    assert f"which may be speaker {speaker!r} of session {session!r} or" in done.stderr
    run(*words, "--last-underscore")
    assert rows(tmp_path / "t.csv", "session", "speaker") == [(session, label)]


@pytest.mark.parametrize(
    ("label", "session"),
    [("L_R001S01C01_spk_1", "L_R001S01C01"), ("s_1_001-M", "s_1"), ("S1_A", "S1")],
)
def test_a_label_of_a_known_form_is_divided(tmp_path, label, session):
    soundfile.write(tmp_path / f"{label}_0003.wav", [0.1] * 16000, 16000)
    (tmp_path / "l.csv").write_text(f"label,path,n\n{label},{label}_0003.wav,1\n")
    run("csv", tmp_path / "l.csv", tmp_path / "t.csv", "--audio-root", tmp_path)
    assert rows(tmp_path / "t.csv", "session", "speaker") == [(session, label)]


def test_a_label_that_its_cuts_table_gives_otherwise_is_refused(tmp_path):
    annotate(tmp_path, [("S1", "A", "NFC")])
    run("rttm", tmp_path / "all.rttm", tmp_path / "t.csv", "--audio-root", tmp_path / "wav")
    run("cut", tmp_path / "t.csv", tmp_path / "cut", "--audio-root", tmp_path / "wav")
    listing = tmp_path / "cut" / "segments.csv"
    listing.write_text(listing.read_text().replace(",S1_A", ",S1_B"))
    words = ["csv", listing, tmp_path / "b.csv", "--audio-root", "/"]
    done = CliRunner().invoke(main, list(map(str, words)))
    assert "label is 'S1_B', expected 'S1_A' as in segments.table.csv" in done.stderr


def test_listed_files_that_the_disk_spells_otherwise_are_found_and_renamed(tmp_path):
    spelt = unicodedata.normalize("NFD", "S1_Jörg_0003.wav")
    soundfile.write(tmp_path / spelt, [0.1] * 16000, 16000)
    (tmp_path / "l.csv").write_text("path,label\nS1_Jörg_0003.wav,S1_Jörg\n", encoding="utf-8")
    run("csv", tmp_path / "l.csv", tmp_path / "t.csv", "--audio-root", tmp_path)
    assert rows(tmp_path / "t.csv", "audio", "speaker") == [(spelt, "S1_Jörg")]
    assert match_names([spelt], ["S1_Jörg_0003.wav"]).renamed == [(spelt, "S1_Jörg_0003.wav")]


def test_a_speaker_with_an_underscore_is_of_his_session_when_files_are_renamed():
    """Numbered otherwise in one speaker, the session's other files are not taken by name."""
    files = [f"S1_A_{n:04d}.wav" for n in (0, 1, 2)] + ["S1_A_1_0000.wav"]
    listed = [f"S1_A_{n:04d}.wav" for n in (0, 1, 2, 4)] + ["S1_A_1_0007.wav"]
    report = match_names(files, listed)
    assert report.ambiguous == ["S1_A.wav: 3 files for 4 rows"]
    assert report.renamed == [("S1_A_1_0000.wav", "S1_A_1_0007.wav")]


def test_turns_at_the_same_time_on_two_channels_are_two_segments(tmp_path):
    (tmp_path / "a.rttm").write_text(
        "".join(f"SPEAKER S1 {c} 1 2 <NA> <NA> {p} <NA> <NA>\n" for p in "AB" for c in (1, 2))
    )
    run("rttm", tmp_path / "a.rttm", tmp_path / "t.csv")
    assert rows(tmp_path / "t.csv", "segment_id", "channel") == [
        ("S1_A_0001.0000_0003.0000_ch0", "0"),
        ("S1_A_0001.0000_0003.0000_ch1", "1"),
        ("S1_B_0001.0000_0003.0000_ch0", "0"),
        ("S1_B_0001.0000_0003.0000_ch1", "1"),
    ]
    run("select", tmp_path / "t.csv", tmp_path / "s.csv")
    assert set(pd.read_csv(tmp_path / "s.csv")["overlap"]) == {1.0}


def test_a_speaker_on_two_channels_does_not_overlap_with_himself(tmp_path):
    (tmp_path / "a.rttm").write_text(
        "".join(f"SPEAKER S1 {c} 1 2 <NA> <NA> A <NA> <NA>\n" for c in (1, 2))
        + "SPEAKER S1 1 2 2 <NA> <NA> B <NA> <NA>\n"
    )
    run("rttm", tmp_path / "a.rttm", tmp_path / "t.csv")
    run("select", tmp_path / "t.csv", tmp_path / "s.csv")
    shares = read_table(tmp_path / "s.csv").set_index("segment_id")["overlap"]
    assert shares.tolist() == [0.5, 0.5, 0.5]


def test_sessions_are_selected_by_their_name_however_it_is_spelt(tmp_path):
    annotate(tmp_path, [("Büro", "A", "NFD"), ("S2", "A", "NFC")])
    run("rttm", tmp_path / "all.rttm", tmp_path / "t.csv")
    name = unicodedata.normalize("NFD", "Büro") + " "
    run("select", tmp_path / "t.csv", tmp_path / "s.csv", "--sessions", name)
    assert rows(tmp_path / "s.csv", "session") == [("Büro",)]


NAMED = st.lists(st.sampled_from(SPEAKERS), min_size=1, max_size=8, unique=True)


@FEW
@given(names=NAMED, suffix=st.sampled_from(["csv", "parquet"]))
def test_labels_pass_through_a_predictions_table(tmp_path_factory, names, suffix):
    scores = json.dumps({name: 1 / len(names) for name in names})
    table = pd.DataFrame(
        {
            "segment_id": [f"{name}_{n}" for n, name in enumerate(names)],
            "session": "S1",
            "speaker": names,
            "predicted": names[::-1],
            "score": 0.5,
            "split": "test",
            "model": "m",
            "scores": scores,
        }
    )
    path = tmp_path_factory.mktemp("p") / f"p.{suffix}"
    write_predictions(table, path)
    again = read_predictions(path)
    assert again["speaker"].tolist() == names
    assert again["predicted"].tolist() == names[::-1]
    assert set(json.loads(again["scores"][0])) == set(names)


def test_ids_made_of_any_names_are_found_in_a_store(tmp_path, store_config):
    ids = [segment_id(s, p, n, n + 1) for n, s in enumerate(SESSIONS) for p in SPEAKERS]
    with StoreWriter(tmp_path / "store", store_config) as writer:
        for n, name in enumerate(ids):
            features = np.full((2, 2), n, dtype=np.float32)
            writer.add(name, features, duration=1.0, frames=49, audio_bytes=9, audio_crc32=7)
    store = FeatureStore.open(tmp_path / "store")
    assert sorted(store.ids()) == sorted(ids)
    assert store.read(ids, 0)[:, 0].tolist() == list(range(len(ids)))


@pytest.fixture
def store_config():
    """Return what a store of two layers and two dimensions says of itself."""
    return {
        "schema": 1,
        "kind": "pooled",
        "encoder": "tiny",
        "revision": "0",
        "layers": [0, 1],
        "pooling": "mean",
        "dim": 2,
        "dtype": "float16",
        "rate": 16000,
        "channel": "0",
        "resample": False,
    }
