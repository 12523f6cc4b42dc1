"""`demo`: the corpus has AISHELL-4's shape, is the same every time, and its voices differ."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spk.common.errors import InputError
from spk.manifests.demo.corpus import demo
from spk.manifests.demo.voices import draw_voices, speak
from spk.manifests.formats.build import make_table, read_identity
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.formats.textgrid import read_textgrid
from spk.manifests.table import sample_span


def with_notes(annotation, **options):
    notes = []
    return make_table(annotation, notes=notes, **options), notes


SMALL = {"sessions": 2, "minutes": 1, "speakers": 3, "channels": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the corpus of the defaults, but for the last recording's number of channels."""
    out = tmp_path_factory.mktemp("demo")
    demo(out, channels=2)
    return out


@pytest.fixture(scope="module")
def segments(corpus: Path):
    table, notes = with_notes(read_rttm(corpus / "TextGrid"), audio_root=corpus / "wav")
    assert notes == []
    return table


def hashes(out: Path) -> dict[str, str]:
    files = (file for file in out.rglob("*") if file.is_file())
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path):
    demo(tmp_path / "here", **SMALL)
    script = (
        f"from spk.manifests.demo.corpus import demo; demo({str(tmp_path / 'there')!r}, **{SMALL})"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert hashes(tmp_path / "here") == hashes(tmp_path / "there")
    assert len(hashes(tmp_path / "here")) == 2 * 3 + 1


def test_another_seed_gives_other_meetings_and_the_same_seed_overwrites(tmp_path):
    demo(tmp_path, **SMALL)
    first = hashes(tmp_path)
    demo(tmp_path, **SMALL, seed=1)
    other = hashes(tmp_path)
    assert [name for name in first if first[name] == other[name]] == ["people.csv"]
    demo(tmp_path, **SMALL)
    assert hashes(tmp_path) == first


def test_the_layout_is_that_of_the_corpus(corpus):
    names = [f"{s}S{n:02d}C01" for s in ("20990301_S_R001", "20990302_M_R002") for n in (1, 2)]
    assert sorted(file.name for file in (corpus / "wav").iterdir()) == [f"{n}.flac" for n in names]
    both = [f"{name}.{suffix}" for name in names for suffix in ("TextGrid", "rttm")]
    assert sorted(file.name for file in (corpus / "TextGrid").iterdir()) == sorted(both)
    for name in names:
        info = soundfile.info(corpus / "wav" / f"{name}.flac")
        assert (info.samplerate, info.subtype, info.duration) == (16000, "PCM_16", 300)
        assert info.channels == (2 if name == names[-1] else 1)


def test_eight_channels_are_the_default_and_differ(tmp_path):
    (name,) = demo(tmp_path, sessions=1, minutes=1, speakers=2)
    samples, _ = soundfile.read(tmp_path / "wav" / f"{name}.flac")
    assert samples.shape == (16000 * 60, 8)
    alike = np.corrcoef(samples.T)[~np.eye(8, dtype=bool)]
    assert alike.max() < 0.99  # each channel hears the voices a little later than another
    levels = 20 * np.log10(samples.std(axis=0))  # dB
    assert np.ptp(levels) < 6


def test_rttm_is_grouped_by_speaker_and_not_sorted_by_time(corpus):
    for file in (corpus / "TextGrid").glob("*.rttm"):
        turns = read_rttm(file).turns
        speakers = [turn.speaker for turn in turns]
        assert speakers == sorted(speakers)
        assert [turn.start for turn in turns] != sorted(turn.start for turn in turns)


def test_textgrid_and_rttm_tell_the_same_turns(corpus, segments):
    reading = read_textgrid(corpus / "TextGrid")
    assert {note.kind for note in reading.notes} == {"silence"}  # marks that are no words
    table = make_table(reading, audio_root=corpus / "wav")
    assert set(table["segment_id"]) == set(segments["segment_id"])


def test_turns_and_overlap_are_like_a_meetings(segments):
    lengths = segments["end"] - segments["start"]
    assert lengths.between(0.3 - 1e-4, 8 + 1e-4).all()
    assert segments.groupby("speaker").size().min() >= 15
    for _, session in segments.groupby("session"):
        active = np.zeros(300 * 1000, int)  # in ms
        for row in session.itertuples():
            active[round(row.start * 1000) : round(row.end * 1000)] += 1
        assert 0.04 < (active > 1).sum() / (active > 0).sum() < 0.12
        for _, own in session.groupby("speaker"):
            ordered = own.sort_values("start")
            assert (ordered["start"].to_numpy()[1:] > ordered["end"].to_numpy()[:-1]).all()


def test_every_session_opens_with_a_roll_call(segments):
    for _, session in segments.groupby("session"):
        first = session.sort_values("start").head(5)
        assert first["speaker"].nunique() == 5
        assert (first["start"].to_numpy()[1:] > first["end"].to_numpy()[:-1]).all()
        assert first["end"].max() < 25


def test_a_series_has_the_same_people_and_the_other_one_others(corpus):
    people = read_identity(corpus / "people.csv")
    of = {}
    for (session, speaker), person in people.items():
        of.setdefault(session, {})[speaker] = person
    first, second, third, fourth = (of[session] for session in sorted(of))
    assert first == second
    assert third == fourth
    assert not set(first.values()) & set(third.values())


def test_the_people_of_two_series_have_other_voices(tmp_path, monkeypatch):
    drawn = {}

    def recording(rng, sexes):
        voices = draw_voices(rng, sexes)
        drawn[len(drawn)] = voices
        return voices

    monkeypatch.setattr("spk.manifests.demo.corpus.draw_voices", recording)
    demo(tmp_path, sessions=4, minutes=1, speakers=2, channels=1)
    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[3]
    assert all(voice not in drawn[0] for voice in drawn[2])


def test_speech_stands_out_of_the_room_and_does_not_clip(corpus, segments):
    name = segments["audio"].iloc[0]
    samples, _ = soundfile.read(corpus / "wav" / name, always_2d=True)
    speech = np.zeros(len(samples), bool)
    for row in segments[segments["audio"] == name].itertuples():
        speech[slice(*sample_span(row.start, row.end + 0.1, 16000))] = True  # and its echo
    loud, quiet = (np.sqrt(np.mean(samples[part, 0] ** 2)) for part in (speech, ~speech))
    assert 20 < 20 * np.log10(loud / quiet) < 50  # dB
    assert (np.abs(samples) > 0.999).mean() < 1e-5


def test_a_voice_keeps_its_pitch():
    low, high = sorted(draw_voices(np.random.default_rng(0), "MF"), key=lambda voice: voice.pitch)
    for voice in (low, high):
        found = []
        for seed in range(5):
            signal, text = speak(voice, 32000, np.random.default_rng(seed))
            assert (signal.shape, signal.dtype) == ((32000,), np.float32)
            assert len(text) == round(2 / voice.pace)
            power = np.abs(np.fft.rfft(signal, 65536)) ** 2
            echo = np.fft.irfft(power / (power + power.mean()))  # autocorrelation, flattened
            found.append(16000 / (50 + np.argmax(echo[50:250])))
        assert np.median(found) == pytest.approx(voice.pitch, rel=0.25)


def test_speakers_are_told_apart_by_their_spectrum_but_not_all(corpus, segments):
    """Mean and deviation of log band energies, ridge, last 30 % of each speaker held out."""
    features, hits = {}, []
    for name, rows in segments.groupby("audio"):
        samples, _ = soundfile.read(corpus / "wav" / name, always_2d=True)
        for row in rows.itertuples():
            signal = samples[slice(*sample_span(row.start, row.end, 16000)), 0]
            features[row.Index] = band_statistics(signal / signal.std())
    for _, session in segments.groupby("session"):
        late = session.groupby("speaker").cumcount() >= 0.7 * session.groupby("speaker")[
            "start"
        ].transform("size")
        train, test = session[~late], session[late]
        model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=30))
        model.fit([features[index] for index in train.index], train["speaker"])
        hits += list(model.predict([features[index] for index in test.index]) == test["speaker"])
    assert 0.8 < np.mean(hits) < 0.995


def band_statistics(signal: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(signal, 400)[::160] * np.hanning(400)
    power = np.abs(np.fft.rfft(windows, 512)) ** 2
    edges = np.unique(np.rint(257 * np.linspace(0.02, 1, 33) ** 1.6).astype(int))
    bands = np.log(np.add.reduceat(power[:, :257], edges[:-1], axis=1) + 1e-3)
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sessions": 0}, "sessions: is 0, expected 1 to 20"),
        ({"minutes": 0.5}, "minutes: is 0.5, expected 1 to 60"),
        ({"speakers": 10}, "speakers: is 10, expected 2 to 9"),
        ({"channels": 0}, "channels: is 0, expected 1 to 16"),
        ({"seed": -1}, "seed: is -1, expected 0"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        demo(tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_recordings_is_refused(tmp_path):
    (tmp_path / "wav").mkdir()
    (tmp_path / "wav" / "mine.flac").write_bytes(b"mine")
    with pytest.raises(InputError, match="holds 1 file not of this demo, first 'mine"):
        demo(tmp_path, **SMALL)
