"""Without validation rows a model is fitted all the same, and says what it lacks."""

import json
import logging

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from spk.classify.cli import main
from spk.classify.experiment import fit
from spk.classify.selection.candidates import SweepSettings
from spk.classify.selection.without_validation import NOT_CALIBRATED, settings_without_choice
from spk.classify.speaker_model import predict
from spk.classify.speaker_model_files import load_model
from spk.common.errors import InputError
from spk.extract.run import extract
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.table import write_table


@pytest.fixture
def unvalidated(table):
    return table.assign(split=table["split"].replace({"valid": ""}))


def typed(*words):
    return CliRunner().invoke(main, list(map(str, words)))


def test_the_simplest_is_fitted_and_told_as_uncalibrated(unvalidated, store_path, store, tmp_path):
    write_table(unvalidated, tmp_path / "table.csv")
    done = typed("fit", tmp_path / "table.csv", store_path, tmp_path / "model")
    assert done.exit_code == 0, done.output
    assert NOT_CALIBRATED in done.stderr
    assert "nothing was chosen: centroid, layers average:0+1+2" in done.stderr
    model = load_model(tmp_path / "model")
    assert not model.calibrated
    assert model.name == "centroid, layers average:0+1+2, uncalibrated"
    origin = json.loads((tmp_path / "model" / "model.json").read_text())["origin"]
    assert (origin["fitted_on"], origin["chosen_and_calibrated_on"]) == ("train", "nothing")
    lines = []
    named = predict(model, unvalidated, store, log=lines.append)
    assert NOT_CALIBRATED in lines
    assert (named["predicted"] == named["speaker"]).mean() > 0.6  # chance is a third
    for text in named["scores"]:
        assert list(json.loads(text).values()) == pytest.approx([1 / 3] * 3, abs=0.01)
    again = typed("fit", tmp_path / "table.csv", store_path, tmp_path / "model")
    assert again.exit_code == 0, again.output  # the same model is there


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({}, ("centroid", "average")),
        ({"layers": "1"}, ("centroid", "alone")),
        ({"combine": "concat"}, ("centroid", "concat")),
        ({"classifiers": "ridge,lda", "penalty": 0.5}, ("ridge", "average")),
        ({"classifiers": "ridge"}, None),  # a penalty would have to be chosen
        ({"classifiers": "lightgbm"}, None),
        ({"combine": "pairs"}, None),
        ({"folds": 3}, None),
    ],
)
def test_only_what_needs_no_choice_goes_without_validation(unvalidated, store, changes, chosen):
    fixed = settings_without_choice(unvalidated, store, SweepSettings(**changes))
    if chosen is None:
        assert fixed is None
    else:
        assert (fixed.classifiers, fixed.combine) == chosen


def test_with_validation_rows_they_choose(table, store):
    assert settings_without_choice(table, store, SweepSettings()) is None
    assert settings_without_choice(table.drop(columns="split"), store, SweepSettings()) is None


def test_what_needs_a_choice_is_refused_as_before(unvalidated, store):
    with pytest.raises(InputError, match="0 segments have split 'valid'.*pass --folds"):
        fit(unvalidated, store, classifiers=["ridge"], log=lambda line: None)


def test_one_segment_of_each_speaker_is_enough_and_told(unvalidated, store, caplog):
    train = unvalidated["split"] == "train"
    first = unvalidated[train].drop_duplicates(["session", "speaker"]).index
    few = unvalidated.assign(split=unvalidated["split"].where(~train, ""))
    few.loc[first, "split"] = "train"
    with caplog.at_level(logging.WARNING):
        model = fit(few, store, layers="1", log=lambda line: None)
    assert "9 of 9 speakers have one training segment: how much their voices vary" in caplog.text
    named = predict(model, few, store, log=lambda line: None)
    assert (named["predicted"] == named["speaker"]).mean() > 0.6


@pytest.fixture
def voices(tmp_path):
    """Return a folder with a clip each of three noises of other colours."""
    for place, name in enumerate(("Ann", "Bob", "Cem")):
        (tmp_path / "voices" / name).mkdir(parents=True)
        for number in range(2):
            soundfile.write(
                tmp_path / "voices" / name / f"{number}.wav", noise(place, number), 16000
            )
    return tmp_path / "voices"


def noise(place, seed):
    """Return a second of white noise, smoothed over 1, 5 or 9 samples."""
    white = np.random.default_rng([place, seed]).normal(0, 0.1, 16000)
    return np.convolve(white, np.ones(1 + 4 * place) / (1 + 4 * place), mode="same")


def test_a_folder_of_clips_becomes_a_model_of_all_its_names(voices, tmp_path):
    for name in ("Ann", "Bob", "Cem"):
        (voices / name / "1.wav").rename(tmp_path / f"{name}.wav")  # one clip of each stays
    done = typed("fit", "--clips", voices, tmp_path / "model", "--encoder", "mfcc")
    assert done.exit_code == 0, done.output
    assert "3 of 3 speakers have one training segment" in done.stderr
    model = load_model(tmp_path / "model")
    assert (model.within, model.config["encoder"]) == ("corpus", "mfcc")
    assert model.fitted["corpus"].labels == ("Ann", "Bob", "Cem")
    turns = [f"SPEAKER {n} 1 0 1 <NA> <NA> {n} <NA> <NA>" for n in ("Ann", "Bob", "Cem")]
    (tmp_path / "turns.rttm").write_text("\n".join(turns))
    table = make_table(read_rttm(tmp_path / "turns.rttm"), audio_root=tmp_path)
    table = table.assign(speaker=table["speaker"].str[-3:])
    options = {"audio_root": tmp_path, "encoder": "mfcc", "log": lambda line: None}
    store = extract(table, tmp_path / "store", **options)
    named = predict(model, table, store, split="all", log=lambda line: None)
    assert named["predicted"].tolist() == named["speaker"].tolist()


def test_a_person_without_a_usable_clip_is_refused(voices, tmp_path):
    soundfile.write(voices / "Cem" / "1.wav", np.zeros(16000), 16000)
    done = typed("fit", "--clips", voices, tmp_path / "model", "--encoder", "mfcc")
    assert done.exit_code == 3, done.output
    assert "left out: 'Cem/1.wav': all 16000 samples are 0" in done.output
    assert "rejected.csv" not in done.output  # the store is gone, and its list with it
    soundfile.write(voices / "Cem" / "0.wav", np.zeros(16000), 16000)
    done = typed("fit", "--clips", voices, tmp_path / "another", "--encoder", "mfcc")
    assert done.exit_code == 1
    assert "0 of 2 clips of 'Cem' can be used, first 'Cem/0.wav': all 16000" in done.output
    assert not (tmp_path / "another").exists()


def test_one_recording_under_two_names_is_refused(voices, tmp_path):
    samples, rate = soundfile.read(voices / "Ann" / "1.wav", dtype="int16")
    soundfile.write(voices / "Cem" / "1.flac", samples, rate)
    done = typed("fit", "--clips", voices, tmp_path / "model", "--encoder", "mfcc")
    assert done.exit_code == 1
    assert "'Ann/1.wav' and 'Cem/1.flac' hold the same samples" in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table.csv", "store"], "2 arguments are given, expected TABLE STORE MODEL"),
        (
            ["t", "s", "m", "--clips", "v"],
            "3 arguments are given, expected MODEL alone",
        ),
        (["t", "s", "m", "--encoder", "mfcc"], "--encoder is of --clips"),
        (["model", "--clips", "nothing"], "nothing: is no folder, expected FOLDER/NAME/*.wav"),
    ],
)
def test_arguments_that_do_not_fit_are_told(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = typed("fit", *words)
    assert done.exit_code in (1, 2)
    assert message in done.output
