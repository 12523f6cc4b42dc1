"""Whole fleets on a synthetic corpus with the tiny `demo` encoder: outputs, going on, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from click.testing import CliRunner
from helpers import REFERENCE_CONFIG

from spk.common.errors import InputError
from spk.finetune.cli import main
from spk.finetune.config import FinetuneConfig, read_config
from spk.finetune.run import train_table
from spk.manifests.demo.corpus import demo
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.splits.split import split_table
from spk.manifests.table import read_predictions, write_table

pytestmark = pytest.mark.slow

KILLED = """
import os, sys
import torch
torch.set_num_threads(1)
from spk.finetune.config import read_config
from spk.finetune.run import train_table
from spk.manifests.table import read_table
calls = [0]
def stop():
    calls[0] += 1
    if calls[0] == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    return False
train_table(read_table(sys.argv[1]), read_config(sys.argv[2]), stop=stop)
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Rounding depends on the number of threads; the machine's is not ours to assume."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return the folder of two synthetic meetings of three speakers, and their table."""
    folder = tmp_path_factory.mktemp("corpus")
    demo(folder, sessions=2, minutes=1.5, speakers=3, channels=1)
    table = make_table(read_rttm(folder / "TextGrid"), audio_root=folder / "wav")
    table = split_table(table[table["end"] - table["start"] >= 1.0], gap=0.5)
    write_table(table, folder / "table.csv")
    return folder, table


@pytest.fixture(scope="module")
def settings(corpus):
    return FinetuneConfig(
        encoder="demo",
        audio_root=str(corpus[0] / "wav"),
        freeze_encoder_layers=3,
        unfreeze="1:2",
        learning_rate=1e-3,
        layer_decay=0.9,
        max_epochs=3,
        lr_step=1,
        batch_seconds=15.0,
        gain_prob=0.5,
        crop_seconds=1.5,
    )


@pytest.fixture(scope="module")
def whole(corpus, settings, tmp_path_factory):
    """Return the settings of an uninterrupted fleet, and what it left."""
    config = replace(settings, log_dir=str(tmp_path_factory.mktemp("whole") / "logs"))
    return config, train_table(corpus[1], config)


def equals(one, other, version=0):
    """Tell whether two fleets have the same bits in a session's model, history and predictions."""
    one, other = (Path(config.log_dir) / f"version_{version}" for config in (one, other))
    (first,), (second,) = (list((f / "checkpoints").glob("*-best.ckpt")) for f in (one, other))
    first, second = (torch.load(path, weights_only=True) for path in (first, second))
    tensors = [first["state_dict"], second["state_dict"]]
    assert tensors[0].keys() == tensors[1].keys()
    history = [pd.read_csv(f / "metrics.csv").drop(columns="seconds") for f in (one, other)]
    return (
        all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())
        and history[0].equals(history[1])
        and first["epoch"] == second["epoch"]
        and (one / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()
    )


def test_a_fleet_leaves_what_is_promised(corpus, whole):
    config, done = whole
    root = Path(config.log_dir)
    assert done.sessions["state"].tolist() == ["done", "done"]
    names = sorted(set(corpus[1]["session"]))
    for version, name in enumerate(names):
        folder = root / f"version_{version}"
        assert (folder / "checkpoints" / f"{name}-best.ckpt").is_file()
        assert (folder / "checkpoints" / f"{name}-last.ckpt").is_file()
        assert list(folder.glob("events.out.tfevents.*"))
        assert pd.read_csv(folder / "metrics.csv")["epoch"].tolist() == [0, 1, 2]
    predictions = read_predictions(root / "predictions.csv")
    wanted = corpus[1][corpus[1]["split"].isin(["valid", "test"])]
    assert set(predictions["segment_id"]) == set(wanted["segment_id"])
    assert read_config(root / "config.yaml") == config


def test_scores_of_sessions_are_those_of_their_predictions(whole):
    config, done = whole
    rows = read_predictions(Path(config.log_dir) / "predictions.csv").query("split == 'test'")
    right = (rows["speaker"] == rows["predicted"]).groupby(rows["session"]).mean()
    assert done.sessions["test_accuracy"].tolist() == right.sort_index().tolist()


def test_the_epoch_is_chosen_on_validation(whole):
    config, done = whole
    for version, best in enumerate(done.sessions["best_epoch"]):
        history = pd.read_csv(Path(config.log_dir) / f"version_{version}" / "metrics.csv")
        ranked = history.sort_values(["val_acc", "val_loss"], ascending=[False, True])
        assert ranked["epoch"].iloc[0] == best


def test_learning_rates_fall_by_epoch(whole):
    history = pd.read_csv(Path(whole[0].log_dir) / "version_0" / "metrics.csv")
    assert history["lr"].tolist() == pytest.approx([1e-3, 0.95e-3, 0.95**2 * 1e-3])


def test_a_finished_fleet_is_not_trained_again(corpus, whole):
    config, done = whole
    told = []
    again = train_table(corpus[1], config, log=told.append)
    assert told == []
    pd.testing.assert_frame_equal(again.sessions, done.sessions)


@pytest.mark.parametrize("batch", [2, 5, 7])
def test_what_goes_on_after_a_stop_equals_the_uninterrupted_run(corpus, whole, tmp_path, batch):
    calls = []

    def stop():
        calls.append(None)
        return len(calls) >= batch

    config = replace(whole[0], log_dir=str(tmp_path / "logs"))
    assert train_table(corpus[1], config, stop=stop).interrupted
    done = train_table(corpus[1], config)
    assert not done.interrupted
    assert equals(whole[0], config, 0)
    assert equals(whole[0], config, 1)


def test_what_goes_on_after_a_kill_in_an_epoch_equals_the_uninterrupted_run(
    corpus, whole, tmp_path
):
    config = replace(whole[0], log_dir=str(tmp_path / "logs"))
    batches = pd.read_csv(Path(whole[0].log_dir) / "version_0" / "metrics.csv")["step"].iloc[0]
    (tmp_path / "config.yaml").write_text(Path(whole[0].log_dir, "config.yaml").read_text())
    text = (tmp_path / "config.yaml").read_text().replace(whole[0].log_dir, config.log_dir)
    (tmp_path / "config.yaml").write_text(text)
    words = [str(corpus[0] / "table.csv"), str(tmp_path / "config.yaml"), str(batches + 1)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], check=False)
    assert killed.returncode == -9
    assert len(pd.read_csv(tmp_path / "logs" / "version_0" / "metrics.csv")) == 1
    train_table(corpus[1], config)
    assert equals(whole[0], config, 0)


def test_a_run_killed_after_its_early_stop_trains_no_further_epoch(
    corpus, settings, tmp_path, monkeypatch
):
    config = replace(
        settings, log_dir=str(tmp_path), patience=1, max_epochs=9, learning_rate=0.0 + 1e-12
    )

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("spk.finetune.training.train_session.write_result", killed)
    with pytest.raises(KeyboardInterrupt):
        train_table(corpus[1], config)
    monkeypatch.undo()
    before = pd.read_csv(tmp_path / "version_0" / "metrics.csv")
    assert len(before) < 9
    train_table(corpus[1], config)
    assert len(pd.read_csv(tmp_path / "version_0" / "metrics.csv")) == len(before)


def test_without_resuming_an_unfinished_session_starts_anew(corpus, whole, tmp_path):
    config = replace(
        whole[0], log_dir=str(tmp_path), resume_from_checkpoint=False, sessions=(first(corpus),)
    )
    calls = []

    def stop():
        calls.append(None)
        return len(calls) == 4

    assert train_table(corpus[1], config, stop=stop).interrupted
    calls.extend([None] * 4)
    train_table(corpus[1], config, stop=stop)
    steps = pd.read_csv(Path(whole[0].log_dir) / "version_0" / "metrics.csv")["step"].iloc[-1]
    assert len(calls) - 8 >= steps  # all batches of all epochs, not the rest of them
    assert equals(whole[0], config, 0)


def first(corpus):
    return sorted(set(corpus[1]["session"]))[0]


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(corpus, whole, tmp_path):
    import resource

    config = replace(whole[0], log_dir=str(tmp_path / "logs"), sessions=(first(corpus),))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(InputError, match="cannot be written .*expected a folder with room"):
            train_table(corpus[1], config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    train_table(corpus[1], config)
    assert equals(whole[0], config, 0)


def test_two_processes_share_the_sessions_and_change_nothing(corpus, whole, tmp_path):
    config = replace(whole[0], log_dir=str(tmp_path), workers_per_device=2, accelerator="cpu")
    train_table(corpus[1], config)
    assert equals(whole[0], config, 0)
    assert equals(whole[0], config, 1)


def test_a_session_in_other_hands_is_left_to_them(corpus, whole, tmp_path):
    from spk.common.locks import FolderLock

    config = replace(whole[0], log_dir=str(tmp_path), sessions=(first(corpus),))
    (tmp_path / "version_0").mkdir()
    lock = FolderLock(tmp_path / "version_0" / "lock")
    try:
        done = train_table(corpus[1], config)
    finally:
        lock.release()
    assert done.busy == (first(corpus),)
    assert done.sessions["state"].tolist() == ["running", "not asked"]
    assert done.sessions["reason"][0].startswith(f"by process {os.getpid()} on ")


def test_another_terminal_reads_in_sessions_csv_who_trains_what(corpus, settings, tmp_path):
    from spk.finetune.training.session_result import SessionResult
    from spk.finetune.training.sessions import plan_training, train_sessions, write_tables

    plan = plan_training(corpus[1], replace(settings, log_dir=str(tmp_path)))
    seen = []

    def train(task, _folder):
        seen.append(pd.read_csv(tmp_path / "sessions.csv")[["state", "reason"]].values.tolist())
        return SessionResult(task.name, "failed", "on purpose")

    train_sessions(plan, train, lambda line: None)
    ((first, who), other), second = seen
    assert (first, other[0]) == ("running", "waiting")
    assert who.startswith(f"by process {os.getpid()} on ")
    assert [state for state, _ in second] == ["unfinished", "running"]
    assert write_tables(plan)["state"].tolist() == ["unfinished", "unfinished"]


def test_a_problem_that_ends_the_run_leaves_no_session_that_is_said_to_be_trained(
    corpus, settings, tmp_path, monkeypatch
):
    def train(task, folder, *, run):
        raise InputError(f"{pd.read_csv(tmp_path / 'sessions.csv')['state'][0]}, on purpose")

    monkeypatch.setattr("spk.finetune.training.train_session.train", train)
    with pytest.raises(InputError, match="^running, on purpose"):
        train_table(corpus[1], replace(settings, log_dir=str(tmp_path)))
    assert pd.read_csv(tmp_path / "sessions.csv")["state"].tolist() == ["unfinished", "waiting"]


def test_other_settings_are_refused_by_name(corpus, whole):
    config = replace(whole[0], learning_rate=2e-3, dropout=0.1)
    with pytest.raises(InputError, match=r"settings \['dropout', 'learning_rate'\] differ"):
        train_table(corpus[1], config)


def test_another_table_is_refused(corpus, whole, tmp_path):
    config = replace(whole[0], log_dir=str(tmp_path), sessions=(first(corpus),))
    calls = []
    train_table(corpus[1], config, stop=lambda: bool(calls.append(None)) or len(calls) > 1)
    with pytest.raises(InputError, match=r"version_0: .* 1 of which are not in this table"):
        train_table(corpus[1].iloc[1:].reset_index(drop=True), config)


def test_a_folder_of_another_program_is_refused(corpus, whole, tmp_path):
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / "hparams.yaml").touch()
    config = replace(whole[0], log_dir=str(tmp_path))
    with pytest.raises(InputError, match="holds 'hparams.yaml' of another program"):
        train_table(corpus[1], config)


def test_settings_may_change_until_an_epoch_is_finished(corpus, whole, tmp_path):
    wrong = replace(whole[0], log_dir=str(tmp_path), freeze_encoder_layers=8, unfreeze="")
    with pytest.raises(InputError, match="--freeze-encoder-layers"):
        train_table(corpus[1], wrong)
    config = replace(
        whole[0], log_dir=str(tmp_path), max_epochs=1, unfreeze="", sessions=(first(corpus),)
    )
    assert train_table(corpus[1], config).sessions["state"].tolist() == ["done", "not asked"]


def test_several_best_epochs_are_kept_where_asked_for(corpus, whole, tmp_path):
    config = replace(
        whole[0], log_dir=str(tmp_path), checkpoint_save_top_k=-1, sessions=(first(corpus),)
    )
    calls = []
    train_table(corpus[1], config, stop=lambda: bool(calls.append(None)) or len(calls) > 7)
    train_table(corpus[1], config)
    kept = sorted(path.name for path in (tmp_path / "version_0" / "checkpoints").glob("*.ckpt"))
    name = first(corpus)
    numbered = [f"{name}-{epoch:03d}.ckpt" for epoch in range(3)]
    assert kept == [*numbered, f"{name}-best.ckpt", f"{name}-last.ckpt"]
    assert equals(whole[0], config, 0)


def test_going_on_from_a_checkpoint_without_its_optimiser_is_refused(corpus, whole, tmp_path):
    name = first(corpus)
    best = Path(whole[0].log_dir) / "version_0" / "checkpoints" / f"{name}-best.ckpt"
    config = replace(whole[0], log_dir=str(tmp_path), resume_from_checkpoint=str(best))
    with pytest.raises(InputError, match="holds no state of the optimiser"):
        train_table(corpus[1], config)


def test_going_on_from_a_checkpoint_by_name_equals_the_uninterrupted_run(corpus, whole, tmp_path):
    config = replace(whole[0], log_dir=str(tmp_path / "one"), sessions=(first(corpus),))
    calls = []
    train_table(corpus[1], config, stop=lambda: bool(calls.append(None)) or len(calls) > 7)
    (last,) = (tmp_path / "one" / "version_0" / "checkpoints").glob("*-last.ckpt")
    other = replace(config, log_dir=str(tmp_path / "two"), resume_from_checkpoint=str(last))
    train_table(corpus[1], other)
    assert equals(whole[0], other, 0)


def test_a_model_for_all_is_trained_by_two_processes_together(corpus, tmp_path):
    words = [sys.executable, str(Path(sys.executable).with_name("spk-finetune")), "fit"]
    words += [str(corpus[0] / "table.csv"), "--config", "baseline", "--max-epochs", "1"]
    words += ["--audio-root", str(corpus[0] / "wav"), "--log-dir", str(tmp_path / "logs")]
    words += ["--encoder", "demo", "--accelerator", "cpu", "--devices", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    history = pd.read_csv(tmp_path / "logs" / "version_0" / "metrics.csv")
    from spk.finetune.data.dataset import batch_indices

    train = corpus[1][corpus[1]["split"] == "train"]
    batches = batch_indices((train["end"] - train["start"]).tolist(), 40.0, 8)
    assert history["step"].iloc[-1] == -(-len(batches) // 2)


def test_a_folder_that_moved_remembers_its_best_epoch(corpus, whole, tmp_path, monkeypatch):
    merits = iter([0.9, 0.1, 0.2, 0.9, 0.1, 0.2])  # of one run, and of one stopped in epoch 1
    monkeypatch.setattr("spk.finetune.model.module.selection_score", lambda *_: next(merits))
    config = replace(whole[0], log_dir=str(tmp_path / "one"), sessions=(first(corpus),))
    assert train_table(corpus[1], config).sessions["best_epoch"].iloc[0] == 0
    steps = pd.read_csv(tmp_path / "one" / "version_0" / "metrics.csv")["step"].iloc[0]
    calls = []
    begun = replace(config, log_dir=str(tmp_path / "begun"))
    train_table(corpus[1], begun, stop=lambda: bool(calls.append(None)) or len(calls) > steps)
    (tmp_path / "begun").rename(tmp_path / "two")
    moved = replace(config, log_dir=str(tmp_path / "two"))
    train_table(corpus[1], moved)
    assert equals(config, moved, 0)


def test_a_checkpoint_of_another_run_is_refused(corpus, whole, tmp_path):
    config = replace(whole[0], log_dir=str(tmp_path / "one"), sessions=(first(corpus),))
    calls = []
    train_table(corpus[1], config, stop=lambda: bool(calls.append(None)) or len(calls) > 7)
    (last,) = (tmp_path / "one" / "version_0" / "checkpoints").glob("*-last.ckpt")
    other = replace(config, log_dir=str(tmp_path / "two"), resume_from_checkpoint=str(last))
    with pytest.raises(InputError, match=r"other values of \['head_size'\]"):
        train_table(corpus[1], replace(other, head_size=8))
    fewer = corpus[1].drop(corpus[1].index[0]).reset_index(drop=True)
    with pytest.raises(InputError, match=r"other values of \[\"the table's rows\"\]"):
        train_table(fewer, replace(other, log_dir=str(tmp_path / "four")))
    names = sorted(set(corpus[1]["session"]))
    with pytest.raises(InputError, match="expected one of the sessions to be trained"):
        train_table(corpus[1], replace(other, sessions=(names[1],)))
    (last.parent / last.name.replace("-last", "-best")).unlink()
    with pytest.raises(InputError, match="the best epoch so far, .* is missing"):
        train_table(corpus[1], replace(other, log_dir=str(tmp_path / "three")))


def test_an_absolute_folder_of_checkpoints_keeps_sessions_apart(corpus, whole, tmp_path):
    config = replace(whole[0], log_dir=str(tmp_path / "logs"), max_epochs=1, unfreeze="")
    train_table(corpus[1], replace(config, checkpoint_dir=str(tmp_path / "kept")))
    kept = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("kept/*/*.ckpt"))
    names = sorted(set(corpus[1]["session"]))
    places = [f"kept/version_{i}/{name}" for i, name in enumerate(names)]
    assert kept == [f"{place}-{kind}.ckpt" for place in places for kind in ("best", "last")]


def test_scores_that_are_not_finite_fail_their_session_alone(corpus, whole, tmp_path, monkeypatch):
    from spk.finetune.training import train_session

    score = train_session.score_segments

    def diverged(module, *rest):
        found = score(module, *rest)
        return found * float("nan") if module.subject.task == first(corpus) else found

    monkeypatch.setattr(train_session, "score_segments", diverged)
    done = train_table(
        corpus[1], replace(whole[0], log_dir=str(tmp_path), max_epochs=1, unfreeze="")
    )
    assert done.sessions["state"].tolist() == ["failed", "done"]
    assert "the training diverged" in done.sessions["reason"].iloc[0]


def test_absent_recordings_are_told_and_nothing_is_skipped_for_it(corpus, whole, tmp_path):
    config = replace(
        whole[0], log_dir=str(tmp_path), max_epochs=1, unfreeze="", sessions=(first(corpus),)
    )
    with pytest.raises(InputError, match="1 of 1 recording is missing, .*--audio-root"):
        train_table(corpus[1], replace(config, audio_root=str(tmp_path)))
    assert train_table(corpus[1], config).sessions["state"].tolist() == ["done", "not asked"]


def test_of_several_channels_it_is_told_which_is_read(corpus, settings, tmp_path):
    folder, table = corpus
    for file in (folder / "wav").iterdir():
        samples, rate = soundfile.read(file)
        soundfile.write(tmp_path / file.name, np.stack([samples, samples], axis=1), rate)
    asked = {"max_epochs": 1, "unfreeze": "", "sessions": (first(corpus),)}
    for audio_root, changes, told in (
        (tmp_path, {}, True),
        (tmp_path, {"channel": "mean"}, False),
        (tmp_path, {"channel_prob": 0.5}, False),
        (folder / "wav", {}, False),
    ):
        lines: list[str] = []
        log_dir = str(tmp_path / f"{len([*tmp_path.iterdir()])}")
        asked |= {"audio_root": str(audio_root), "log_dir": log_dir}
        train_table(table, replace(settings, **asked, **changes), warn=lines.append)
        heard = [line.startswith("recordings have up to 2 channels, and only") for line in lines]
        assert any(heard) == told


def test_leftovers_of_a_kill_go(corpus, whole, tmp_path):
    config = replace(
        whole[0], log_dir=str(tmp_path), max_epochs=1, unfreeze="", sessions=(first(corpus),)
    )
    config = replace(config, keep_last=False)
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / ".task.json.abc").touch()  # killed while that was written
    train_table(corpus[1], config)
    checkpoints = tmp_path / "version_0" / "checkpoints"
    (checkpoints / f"{first(corpus)}-last.ckpt").touch()
    (checkpoints / ".x-last.ckpt.abc").touch()
    (tmp_path / "version_0" / "prefix").mkdir()
    train_table(corpus[1], config)
    assert [path.name for path in checkpoints.iterdir()] == [f"{first(corpus)}-best.ckpt"]
    left = {path.name for path in (tmp_path / "version_0").iterdir()}
    assert not left & {"prefix", ".task.json.abc"}


def test_layers_that_open_later_are_refused_with_several_processes(corpus, whole, tmp_path):
    config = replace(whole[0], log_dir=str(tmp_path), within="corpus", devices=2, accelerator="cpu")
    with pytest.raises(InputError, match="--unfreeze: value is '1:2' with 2 devices on one model"):
        train_table(corpus[1], config)


def test_validation_of_strangers_alone_is_no_validation(corpus, whole, tmp_path):
    table = corpus[1].copy()
    ours = (table["session"] == first(corpus)) & (table["split"] == "valid")
    table.loc[ours, "speaker"] = f"{first(corpus)}_099-M"
    done = train_table(table, replace(whole[0], log_dir=str(tmp_path), max_epochs=1, unfreeze=""))
    assert done.sessions["state"].tolist() == ["skipped", "done"]
    assert done.sessions["reason"].iloc[0] == "no validation segment of a speaker in train"


def test_sessions_before_start_meeting_are_left_out_and_listed(corpus, whole, tmp_path):
    names = sorted(set(corpus[1]["session"]))
    config = replace(
        whole[0], log_dir=str(tmp_path), start_meeting=names[1], max_epochs=1, unfreeze=""
    )
    done = train_table(corpus[1], config)
    assert done.sessions["state"].tolist() == ["not asked", "done"]
    assert done.sessions["reason"].iloc[0] == f"before --start-meeting {names[1]}"
    assert (tmp_path / "version_1" / "result.json").is_file()


def test_shards_are_disjoint_and_complete(corpus, whole, tmp_path):
    from spk.finetune.training.sessions import plan_training

    parts = [plan_training(corpus[1], replace(whole[0], shard=f"{i}/2")).tasks for i in (1, 2)]
    assert sorted([*parts[0], *parts[1]]) == [0, 1]


def test_an_unknown_session_is_refused(corpus, whole):
    with pytest.raises(InputError, match="--sessions: 'x' is not in the table"):
        train_table(corpus[1], replace(whole[0], sessions=("x",)))


def test_a_session_of_one_speaker_is_skipped_with_the_reason(corpus, whole, tmp_path):
    table, name = corpus[1], first(corpus)
    lonely = table[(table["session"] != name) | (table["speaker"] == f"{name}_001-F")]
    if not (lonely["session"] == name).any():
        speaker = table[table["session"] == name]["speaker"].iloc[0]
        lonely = table[(table["session"] != name) | (table["speaker"] == speaker)]
    config = replace(whole[0], log_dir=str(tmp_path), max_epochs=1, unfreeze="")
    done = train_table(lonely.reset_index(drop=True), config)
    assert done.sessions["state"].tolist() == ["skipped", "done"]
    assert done.sessions["reason"].iloc[0].startswith("1 label in train, fewer than two")


def test_rejected_segments_are_listed(corpus, whole, tmp_path):
    table = corpus[1].copy()
    row = table.index[(table["session"] == first(corpus)) & (table["split"] == "train")][0]
    table.loc[row, "end"] = table.loc[row, "start"] + 0.01
    config = replace(
        whole[0], log_dir=str(tmp_path), sessions=(first(corpus),), max_epochs=1, unfreeze=""
    )
    done = train_table(table, config)
    listed = pd.read_csv(tmp_path / "rejected.csv")
    assert listed["segment_id"].tolist() == [table.loc[row, "segment_id"]]
    assert listed["reason"].iloc[0].startswith("too-short: ")
    assert done.left_out == 1


def test_too_little_memory_names_the_seconds_that_fitted(corpus, whole, tmp_path, monkeypatch):
    from spk.finetune.model.module import SpeakerModule

    step = SpeakerModule.training_step

    def small(self, batch, number):
        if number == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return step(self, batch, number)

    monkeypatch.setattr(SpeakerModule, "training_step", small)
    config = replace(whole[0], log_dir=str(tmp_path))
    with pytest.raises(InputError, match=r"pass --batch-seconds 11\.2 \(three quarters of it\)"):
        train_table(corpus[1], config)


def test_three_speakers_are_learnt_by_heart(corpus, settings, tmp_path):
    config = replace(
        settings,
        log_dir=str(tmp_path),
        sessions=(first(corpus),),
        max_epochs=25,
        patience=None,
        lr_gamma=1.0,
        dropout=0.0,
        crop_seconds=None,
        gain_prob=0.0,
        head_learning_rate=1e-2,
    )
    train_table(corpus[1], config)
    assert pd.read_csv(tmp_path / "version_0" / "metrics.csv")["train_acc"].max() == 1.0


def test_a_cached_prefix_changes_not_a_bit(corpus, settings, tmp_path):
    plain = replace(
        settings,
        crop_seconds=None,
        gain_prob=0.0,
        log_dir=str(tmp_path / "plain"),
        sessions=(first(corpus),),
    )
    cached = replace(plain, cache_prefix=True, log_dir=str(tmp_path / "cached"))
    train_table(corpus[1], plain)
    train_table(corpus[1], cached)
    assert equals(plain, cached, 0)
    assert not (tmp_path / "cached" / "version_0" / "prefix").exists()


def test_a_cache_that_would_not_be_exact_is_refused(corpus, settings, tmp_path):
    config = replace(settings, cache_prefix=True, log_dir=str(tmp_path))
    with pytest.raises(InputError, match="--cache-prefix: crop_seconds is 1.5, which changes"):
        train_table(corpus[1], config)


def test_the_reference_projects_config_runs_as_it_is(corpus, tmp_path):
    (tmp_path / "config.yaml").write_text(REFERENCE_CONFIG)
    words = ["fit", str(corpus[0] / "table.csv"), "--config", str(tmp_path / "config.yaml")]
    words += ["--audio-root", str(corpus[0] / "wav"), "--log-dir", str(tmp_path / "logs")]
    words += ["--encoder", "demo", "--freeze-encoder-layers", "3", "--max-epochs", "1"]
    words += ["--sessions", first(corpus), "--workers", "0"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "logs" / "version_0" / "checkpoints" / f"{first(corpus)}-best.ckpt").exists()


@pytest.mark.parametrize("preset", ["transfer", "baseline"])
def test_presets_run_from_end_to_end(corpus, tmp_path, preset):
    words = ["fit", str(corpus[0] / "table.csv"), "--config", preset, "--max-epochs", "2"]
    words += ["--audio-root", str(corpus[0] / "wav"), "--log-dir", str(tmp_path / "logs")]
    words += ["--encoder", "demo"]
    if preset == "transfer":
        words += ["--freeze-encoder-layers", "3"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    models = set(read_predictions(tmp_path / "logs" / "predictions.csv")["model"])
    corpus_wide = ", within corpus" if preset == "baseline" else ""
    assert models == {f"finetune untrained{corpus_wide}, untrained encoder"}
    assert "test accuracy" in done.output


def test_what_can_be_repaired_is_one_line(corpus, tmp_path):
    done = CliRunner().invoke(main, ["fit", str(corpus[0] / "table.csv"), "--config", "x.yaml"])
    assert done.exit_code == 1
    assert "x.yaml" in done.output
    assert "Traceback" not in done.output


def test_fit_without_a_table_is_refused(tmp_path):
    done = CliRunner().invoke(main, ["fit"])
    assert done.exit_code == 1
    assert "TABLE: is not given, and neither is csv_path" in done.output


def test_predictions_of_a_folder_are_those_of_the_run(corpus, whole, tmp_path):
    words = ["predict", whole[0].log_dir, str(corpus[0] / "table.csv"), str(tmp_path / "p.csv")]
    done = CliRunner().invoke(main, [*words, "--audio-root", str(corpus[0] / "wav")])
    assert done.exit_code == 0, done.output
    named = read_predictions(tmp_path / "p.csv").set_index("segment_id")
    known = read_predictions(Path(whole[0].log_dir) / "predictions.csv")
    known = known[known["split"] == "test"].set_index("segment_id").loc[named.index]
    assert named["predicted"].tolist() == known["predicted"].tolist()
    assert named["score"].tolist() == pytest.approx(known["score"].tolist(), abs=1e-5)  # batches
    assert named["model"].tolist() == known["model"].tolist()


def test_predict_leaves_out_sessions_without_a_model(corpus, whole, tmp_path):
    name = first(corpus)
    checkpoint = Path(whole[0].log_dir) / "version_0" / "checkpoints" / f"{name}-best.ckpt"
    words = ["predict", str(checkpoint), str(corpus[0] / "table.csv"), str(tmp_path / "p.csv")]
    done = CliRunner().invoke(main, [*words, "--audio-root", str(corpus[0] / "wav")])
    assert done.exit_code == 3, done.output
    assert set(read_predictions(tmp_path / "p.csv")["session"]) == {name}
    assert "segments, no model of this session" in done.output


def test_another_encoder_is_refused(corpus, whole, layer_encoder, tmp_path):
    words = ["predict", whole[0].log_dir, str(corpus[0] / "table.csv"), str(tmp_path / "p.csv")]
    words += ["--audio-root", str(corpus[0] / "wav"), "--encoder", str(layer_encoder)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert "weights_sha256 is" in done.output


def test_tuned_features_go_into_a_store_of_their_own(corpus, whole, tmp_path):
    from spk.extract import FeatureStore
    from spk.extract.audio import segments_of
    from spk.extract.encoder.encoder import load_encoder
    from spk.finetune.model.checkpoint import load_finetuned

    name = first(corpus)
    checkpoint = Path(whole[0].log_dir) / "version_0" / "checkpoints" / f"{name}-best.ckpt"
    words = ["embed", str(checkpoint), str(corpus[0] / "table.csv"), str(tmp_path / "store")]
    words += ["--audio-root", str(corpus[0] / "wav"), "--pooling", "mean"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    store = FeatureStore.open(tmp_path / "store")
    assert store.config["encoder"] == f"untrained, fine-tuned on {name}"
    assert store.config["weights_sha256"] != load_encoder("demo").provenance()["weights_sha256"]
    rows = corpus[1][corpus[1]["session"] == name].iloc[:1]
    found = store.read(rows["segment_id"], layer=5)[0]
    module = load_finetuned(checkpoint)
    samples = samples_of(segments_of(rows, str(corpus[0] / "wav"))[0])
    with torch.inference_mode():
        (state,) = module.trunk.run_trainable(
            module.trunk.run_frozen(*module.trunk.prepare([samples], torch.device("cpu")))
        )
    expected = state[0].mean(0).numpy()
    assert abs(found - expected).max() < 2e-3 * abs(expected).max()  # the store holds float16


def samples_of(segment):
    from spk.extract.audio import ReadOptions, read_segment

    return read_segment(segment, ReadOptions()).samples


def test_a_store_takes_one_model(corpus, whole, tmp_path):
    words = ["embed", whole[0].log_dir, str(corpus[0] / "table.csv"), str(tmp_path / "store")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert "holds 2 models" in done.output


def test_damaged_results_are_told(tmp_path):
    from spk.finetune.training.session_result import read_result

    (tmp_path / "result.json").write_text(json.dumps({"state": "done", "nonsense": 1}))
    with pytest.raises(InputError, match="expected a result of spk-finetune"):
        read_result(tmp_path)


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_command_in_good_order(corpus, whole, tmp_path, kind, code):

    words = [sys.executable, "-c", "from spk.finetune.cli import main; main()", "fit"]
    words += [str(corpus[0] / "table.csv"), "--config", str(Path(whole[0].log_dir) / "config.yaml")]
    words += ["--log-dir", str(tmp_path / "logs"), "--max-epochs", "200", "--patience", "none"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        while not (tmp_path / "logs" / "version_0" / "metrics.csv").is_file():
            time.sleep(0.1)
            assert running.poll() is None, running.stderr.read()
        running.send_signal(kind)
        _, told = running.communicate()
    assert running.returncode == code
    assert "interrupted; run the same command to resume" in told
    assert "Traceback" not in told


def test_a_worker_whose_parent_was_killed_ends_after_its_batch(monkeypatch):
    from spk.finetune import run

    asked = []

    def train_all(fleet, device, stop, log):
        asked.append(stop())
        monkeypatch.setattr(run.os, "getppid", lambda: 1)  # as of an orphan
        asked.append(stop())
        return [], stop()

    monkeypatch.setattr(run, "_train_all", train_all)
    monkeypatch.setattr(run.os, "getppid", lambda: 4711)
    with pytest.raises(SystemExit) as ended:
        run._worker(None, "cpu", 1, False)
    assert asked == [False, True]
    assert ended.value.code == 128 + signal.SIGTERM
