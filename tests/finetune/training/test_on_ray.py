"""Fine-tuning on a real Ray with two nodes: the same models as on this machine, through kills."""

import contextlib
import os
import re
import shutil
import signal

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from helpers import without_next_steps
from ray_cluster import said_by

from spk.common.engine.work import Done, FailedUnit, Resources
from spk.common.errors import InputError
from spk.common.extras import EXTRAS
from spk.finetune.cli import main
from spk.finetune.config import FinetuneConfig
from spk.finetune.training import many_machines
from spk.finetune.training.many_machines import Trained
from spk.manifests.table import write_table

EPOCHS = 3


def test_devices_are_not_counted_where_ray_hands_them_out():
    with pytest.raises(InputError, match="--devices: value is 2, expected none beside engine ray"):
        FinetuneConfig(engine="ray", devices=2)
    with pytest.raises(InputError, match="--ray-address: value is 'h:1' beside --engine local"):
        FinetuneConfig(ray_address="h:1")


@pytest.fixture(scope="module")
def corpus(meetings, tmp_path_factory):
    """Return the words of a command on a table of two meetings."""
    table = tmp_path_factory.mktemp("tuned") / "table.csv"
    write_table(meetings[1], table)
    settings = ["--log-dir", "logs", "--audio-root", str(meetings[0]), "--encoder", "demo"]
    settings += ["--accelerator", "cpu", "--freeze-encoder-layers", "3", "--patience", "none"]
    settings += ["--max-epochs", str(EPOCHS), "--learning-rate", "1e-3", "--batch-seconds", "4"]
    return ["finetune", "fit", str(table), *settings]


@pytest.mark.parametrize(
    ("busy", "failed", "code", "said"),
    [
        ([], ["M1", "M2"], 3, ""),
        (["M1"], ["M2"], 4, "another process is working on 1 session, first 'M1'\n"),
    ],
)
def test_sessions_that_failed_or_are_anothers_have_their_exit_codes(
    corpus, tmp_path, monkeypatch, busy, failed, code, said
):
    monkeypatch.setitem(EXTRAS, "ray", ())  # this needs no Ray

    def without_ray(address, describe, stop, log):
        units = {unit.name: unit for unit in describe(None).units}
        for name in busy:
            describe(None).publish(units[name], Done(Trained(busy=True)))
        return False, [FailedUnit(units[name], "it died") for name in failed]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(many_machines, "check_machines", lambda *_, **__: None)
    monkeypatch.setattr(many_machines, "unit_resources", lambda *_, **__: Resources())
    monkeypatch.setattr(many_machines, "count_slots", lambda *_: 1)
    monkeypatch.setattr(many_machines, "run_units", without_ray)
    done = CliRunner().invoke(main, [*corpus[1:], "--engine", "ray"])
    assert (done.exit_code, without_next_steps(done.stderr)) == (code, said)
    again = re.search("^next: spk-finetune fit .* --engine ray", done.stderr, re.MULTILINE)
    assert bool(again) == (code == 3)
    assert "logs: 2 waiting" in done.stdout


@pytest.fixture(scope="module")
def here(corpus, tmp_path_factory):
    """Return the folder in which this machine has trained by itself, on one thread."""
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    torch.set_num_threads(1)
    with contextlib.chdir(folder):
        done = CliRunner().invoke(main, corpus[1:])
    torch.set_num_threads(threads)
    assert done.exit_code == 0, done.output
    return folder


def on(two):
    return ["--engine", "ray", "--ray-address", two.address]


def models(folder):
    """Return each session's weights, epochs, and bytes of its predictions, and the tables'."""
    logs = folder / "logs"
    found = []
    for path in sorted(logs.glob("version_*")):
        (best,) = path.glob("checkpoints/*-best.ckpt")
        checkpoint = torch.load(best, weights_only=True)
        history = pd.read_csv(path / "metrics.csv").drop(columns="seconds")
        assert history["epoch"].tolist() == list(range(EPOCHS))
        assert leftovers(path) == []
        words = (path / "predictions.csv").read_bytes()
        found.append((checkpoint["state_dict"], checkpoint["spk"], history, words))
    sessions = pd.read_csv(logs / "sessions.csv").drop(columns="seconds")
    return found, sessions, (logs / "predictions.csv").read_bytes()


def leftovers(path):
    return [str(file) for file in path.rglob(".*")]


def assert_same(these, others):
    assert len(these[0]) == len(others[0])
    for one, other in zip(these[0], others[0], strict=True):
        assert one[0].keys() == other[0].keys()
        assert all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())
        assert one[1] == other[1]
        assert one[2].equals(other[2])
        assert one[3] == other[3]
    assert these[1].equals(others[1])
    assert these[2] == others[2]


@pytest.mark.slow
def test_what_is_finished_starts_no_ray_and_is_tidied(corpus, here, tmp_path, monkeypatch):
    monkeypatch.setitem(EXTRAS, "ray", ())  # this needs no Ray
    shutil.copytree(here, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs" / "version_0" / ".ray").mkdir()  # as kills leave them
    (tmp_path / "logs" / "version_1" / ".result.json.part-abcdefgh").touch()
    done = CliRunner().invoke(main, [*corpus[1:], "--engine", "ray"])
    assert (done.exit_code, without_next_steps(done.stderr)) == (0, "")
    assert_same(models(tmp_path), models(here))


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_a_node_and_the_driver_killed_change_no_model(two, corpus, here, tmp_path):
    two.set_fault("slow.wav")
    logs = tmp_path / "logs"
    process = two.start([*corpus, *on(two)], tmp_path)
    two.wait_for(lambda: begun(logs), process)
    os.kill(two.workers()[0], signal.SIGKILL)
    two.tell("kill a node")
    try:
        trained = sum(begun(logs))
        two.wait_for(lambda: sum(begun(logs)) > trained, process)
        process.kill()
        process.communicate()
    finally:
        two.tell("add a node")
    assert len(list(logs.glob("version_*/result.json"))) < 2
    two.clear()
    code, _, errors = two.run([*corpus, *on(two)], tmp_path)
    assert (code, errors) == (0, "")
    assert_same(models(tmp_path), models(here))


def begun(logs):
    """Return how many epochs each begun session has."""
    return [len(pd.read_csv(path)) for path in logs.glob("version_*/metrics.csv")]


@pytest.mark.ray
@pytest.mark.slow
def test_one_model_of_two_processes_is_that_of_one_machine_bit_for_bit(two, corpus, tmp_path):
    """Also where the task that started them is killed: all go on from the last epoch."""
    together = [*corpus, "--within", "corpus", "--devices", "2"]
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here = two.start(together, tmp_path / "here")
    two.set_fault("slow.wav")
    process = two.start([*together, *on(two)], tmp_path / "there")
    two.wait_for(lambda: begun(tmp_path / "there" / "logs"), process)
    os.kill(two.workers()[0], signal.SIGKILL)
    two.clear()
    code, _, errors = said_by(process)
    assert (code, errors) == (0, "")
    code, _, errors = said_by(here)
    assert code == 0, errors
    assert_same(models(tmp_path / "there"), models(tmp_path / "here"))
