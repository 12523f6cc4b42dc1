"""Names and features by tuned models: what is left out, refused, told, and taken from training."""

from dataclasses import replace

import pandas as pd
import pytest
import soundfile
import torch
from click.testing import CliRunner

from spk.common.counts import counted
from spk.common.errors import InputError
from spk.extract import FeatureStore
from spk.finetune.cli import main
from spk.finetune.prediction import embed, predict
from spk.manifests.table import read_predictions, write_table

SPLITS = ["train", "test", "test", "valid"]


@pytest.fixture(scope="module")
def table(segments, tmp_path_factory):
    """Return four segments of session M1 as a table, and the folder of its recordings."""
    folder = tmp_path_factory.mktemp("wav")
    (folder / "r.wav").symlink_to(segments[0].path)
    rows = [(s.segment_id, "r.wav", s.start, s.end) for s in segments[:4]]
    found = pd.DataFrame(rows, columns=["segment_id", "audio", "start", "end"])
    return found.assign(session="M1", speaker="a", split=SPLITS), str(folder)


def silent(table, session, **changes):
    """Return segments of a silent recording, of a session."""
    rows, folder = table
    soundfile.write(f"{folder}/silent.wav", [0.0] * 160_000, 16000)
    renamed = rows["segment_id"] + f"-{session}"
    return rows.assign(audio="silent.wav", segment_id=renamed, session=session, **changes)


@pytest.fixture(scope="module")
def model(make_module, tmp_path_factory):
    """Return a function that saves a model of M1 with some settings, trained on some segments."""
    folder = tmp_path_factory.mktemp("models")

    def make(*trained, **settings):
        module = make_module("layer", freeze_encoder_layers=2, **settings)
        module.subject = replace(module.subject, trained=frozenset(trained))
        checkpoint = {"state_dict": module.state_dict()}
        module.on_save_checkpoint(checkpoint)
        path = folder / f"{len([*folder.iterdir()])}.ckpt"
        torch.save(checkpoint, path)
        return path

    return make


def command(table, folder, tmp_path, checkpoint, *words):
    write_table(table, tmp_path / "table.csv")
    out = [str(tmp_path / name) for name in ("table.csv", "out.csv")]
    return CliRunner().invoke(
        main, ["predict", str(checkpoint), *out, "--audio-root", folder, *words]
    )


def test_a_session_whose_segments_are_all_rejected_is_left_out(table, model):
    rows, folder = table
    both = pd.concat([rows, silent(table, "M2"), silent(table, "M1").iloc[1:2]])
    found = predict(model(within="corpus"), both, audio_root=folder)
    assert found.table["segment_id"].tolist() == ["s1", "s2"]
    assert found.left_out == {"M2": "2 segments, all rejected"}
    assert {*found.rejected} == {"s1-M2", "s2-M2", "s1-M1"}
    assert found.rejected["s1-M1"].startswith("silent: ")


def test_a_fleet_goes_on_after_a_session_whose_segments_are_all_rejected(table, model, tmp_path):
    from spk.finetune.training.session_result import SessionResult, write_result

    rows, folder = table
    for version, task in enumerate(("M0", "M1")):
        (tmp_path / f"version_{version}").mkdir()
        checkpoint = str(model(task=task))
        write_result(
            tmp_path / f"version_{version}", SessionResult(task, "done", checkpoint=checkpoint)
        )
    found = predict(tmp_path, pd.concat([silent(table, "M0"), rows]), audio_root=folder)
    assert found.table["session"].tolist() == ["M1", "M1"]
    assert found.left_out == {"M0": "2 segments, all rejected"}


def test_nothing_to_name_is_refused_with_the_reason(table, model):
    rows, folder = table
    with pytest.raises(
        InputError, match=r"2 of 2 segments are rejected.*first 's1-M1' \(silent: .*--audio-root"
    ):
        predict(model(), silent(table, "M1"), audio_root=folder)
    with pytest.raises(InputError, match="0 of 2 segments are of a session that .*ckpt knows"):
        predict(model(), rows.assign(session="M9"), audio_root=folder)


def test_the_exit_code_tells_rejected_segments(table, model, tmp_path):
    rows, folder = table
    done = command(rows, folder, tmp_path, model())
    assert (done.exit_code, "left out" in done.output) == (0, False)
    some = pd.concat([rows, silent(table, "M1").iloc[1:2]])
    done = command(some, folder, tmp_path, model())
    assert done.exit_code == 3
    assert "left out: s1-M1, silent: " in done.output
    assert len(read_predictions(tmp_path / "out.csv")) == 2
    other = pd.concat([rows, rows.assign(session="M9", segment_id=rows["segment_id"] + "-M9")])
    done = command(other, folder, tmp_path, model())
    assert done.exit_code == 3
    assert "left out: M9, 2 segments, no model of this session" in done.output


def test_a_gpu_that_is_not_there_is_told(table, model, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    rows, folder = table
    for device, count in (("gpu", 1), ("auto", 0), ("cpu", 0)):
        told = []
        predict(model(), rows, audio_root=folder, device=device, log=told.append)
        expected = "--device: 'gpu' is requested but there is none; predicting on the CPU"
        assert told == [expected] * count
    done = command(rows, folder, tmp_path, model(), "--accelerator", "gpu")
    assert expected in done.output


@pytest.mark.parametrize(
    ("split", "trained", "count"),
    [
        ("test", ("s0", "s1", "s7"), 1),
        ("all", ("s0",), 0),
        ("all", ("s0", "s1", "s2", "s3"), 3),
    ],
)
def test_segments_outside_train_that_were_trained_on_are_told(
    table, model, tmp_path, split, trained, count
):
    rows, folder = table
    done = command(rows, folder, tmp_path, model(*trained), "--split", split)
    assert done.exit_code == 0
    (name,) = set(read_predictions(tmp_path / "out.csv")["model"])
    assert name.endswith(f", {counted(count, 'training segment')}") == bool(count)
    total = 4 if split == "all" else 2
    told = f"{counted(count, 'segment', 'is', of=total)} not of the split train and "
    assert (told in done.output) == bool(count)
    assert ("first 's1'" in done.output) == bool(count)


def test_segments_of_no_split_that_were_trained_on_are_told(table, model):
    rows, folder = table
    found = predict(model("s0"), rows.drop(columns="split"), split="all", audio_root=folder)
    assert found.table["model"].str.endswith(", 1 training segment").all()


@pytest.mark.parametrize(("words", "channel"), [((), "1"), (("--channel", "0"), "0")])
def test_features_are_of_the_channel_of_training_unless_another_is_named(
    table, model, tmp_path, words, channel
):
    rows, folder = table
    write_table(rows, tmp_path / "table.csv")
    checkpoint = model(channel="1")
    where = [str(tmp_path / name) for name in ("table.csv", "store")]
    done = CliRunner().invoke(
        main, ["embed", str(checkpoint), *where, "--audio-root", folder, *words]
    )
    assert done.exit_code == 0, done.output
    assert str(FeatureStore.open(tmp_path / "store").config["channel"]) == channel


def test_recordings_are_resampled_as_in_training_unless_told_otherwise(table, model, tmp_path):
    rows, folder = table
    soundfile.write(f"{folder}/slow.wav", [0.1, -0.1] * 40_000, 8000)
    slow, options = rows.assign(audio="slow.wav"), {"audio_root": folder}
    for resample, given in ((True, False), (False, None)):
        checkpoint = model(resample=resample)
        with pytest.raises(InputError, match="sample rate is 8000 Hz"):
            embed(checkpoint, slow, tmp_path / "no", {**options, "resample": given})
    assert embed(model(resample=True), slow, tmp_path / "store", options).segments == 4


def test_nobody_is_named_below_a_probability(table, model, tmp_path):
    rows, folder = table
    checkpoint = model(task="M1")
    result = predict(checkpoint, rows, audio_root=folder)
    plain = result.table
    assert repr(result) == f"<PredictionResult 2 segments, {plain['model'].iloc[0]}>"
    between = float(plain["score"].mean())
    below = ("--unknown-below", repr(between))
    done = command(rows, folder, tmp_path, checkpoint, *below)
    assert done.exit_code == 0, done.output
    found = read_predictions(tmp_path / "out.csv")
    unsure = plain["score"] < between
    assert unsure.tolist() in ([True, False], [False, True])
    assert (found["predicted"] == "unknown").tolist() == unsure.tolist()
    assert found["best"].tolist() == plain["predicted"].tolist()
    assert f"unknown: 1 of 2 segments, probability below {between:.6g}\n" in done.stdout
    for wrong in ("1.5", "auto"):
        assert command(rows, folder, tmp_path, checkpoint, "--unknown-below", wrong).exit_code


def test_of_several_channels_it_is_told_which_is_read(table, model):
    rows, folder = table  # of a recording of two channels
    (note,) = predict(model(channel="1"), rows, audio_root=folder).notes
    assert note.startswith("recordings have up to 2 channels, and only channel 1 is read")
    assert predict(model(channel="mean"), rows, audio_root=folder).notes == ()
    assert predict(model(), rows.assign(channel="1"), audio_root=folder).notes == ()
