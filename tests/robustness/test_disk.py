"""A share of `disk.py`: one line, nothing lost, and the same command ends well with room."""

import errno
import os
import shutil
import threading
from contextlib import contextmanager, suppress

import pytest

from spk.classify.selection.sweep_cache import SweepCache
from spk.common import files
from spk.common.errors import InputError
from spk.common.files import check_free_space
from spk.common.locks import FolderLock
from spk.extract.store.export import pack
from spk.finetune import run
from spk.finetune.training import sessions
from spk.finetune.training.train_session import _quiet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jobs(disk, scene, tmp_path_factory):
    """Return the jobs, with what each leaves undisturbed."""
    folder = tmp_path_factory.mktemp("jobs")
    return disk.make_jobs(scene.make_corpus(folder / "corpus"), folder, fleet=False)


@pytest.mark.parametrize("kind", ["full", "limit", "read-only"])
def test_a_job_is_told_loses_nothing_and_goes_on(disk, jobs, kind):
    rng = disk.np.random.default_rng(7)
    counts = disk.Counter()
    for job in jobs:
        try:
            assert disk.KINDS[kind](job, rng, counts) == []
        except PermissionError as problem:
            pytest.skip(str(problem))
    assert counts["rounds"] == counts["went on to end"] == len(jobs)
    assert counts["told in a line"] + counts["finished"] == len(jobs)
    assert counts["told in a line"] >= len(jobs) - 2
    assert counts["lost or wrong"] == 0
    assert kind == "read-only" or counts["with bytes"] > 0


def test_a_folder_that_goes_is_told(disk, jobs):
    rng = disk.np.random.default_rng(8)
    for job in jobs:
        assert disk.gone(job, rng, disk.Counter()) == []


def test_a_sweep_whose_files_go_is_told(jobs, scene, tmp_path, monkeypatch):
    line = next(job for job in jobs if job.name == "sweep").line.replace("OUT", "swept")
    monkeypatch.setattr(
        "spk.classify.output.write_metrics", lambda *_: shutil.rmtree(tmp_path / "swept")
    )
    monkeypatch.chdir(tmp_path)
    done = scene.typed(line)
    assert (done.code, done.clear) == (1, True)
    files = "['sweep.csv', 'sweep.png', 'predictions.csv', 'metrics.csv']"
    assert f"swept: {files} have disappeared" in done.err


def test_a_file_half_written_under_its_name_is_caught_by_the_harness(
    disk, jobs, monkeypatch, tmp_path
):
    """Where a failed write is not heeded, what is left of a full disk is damaged."""
    merge = next(job for job in jobs if job.name == "merge")

    @contextmanager
    def careless(path, needed):
        with suppress(OSError), open(path, "w+b", buffering=0) as file:
            yield file

    monkeypatch.setattr("spk.extract.store.shard_writer.synced_file", careless)
    counts, broken = disk.Counter(), []
    for size in range(2000, 14000, 4000):
        with disk.limited(size):
            done = merge.told(tmp_path / str(size))
        broken += disk.judge(merge, tmp_path / str(size), done, counts)
    assert counts["lost or wrong"] > 0
    assert broken


def test_a_lock_on_a_full_disk_holds_and_is_given_back(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("write", "ftruncate"):
        monkeypatch.setattr(files.os, name, full)
    lock = FolderLock(tmp_path / "lock")
    with pytest.raises(InputError, match="locked by a process that has not said who it is"):
        FolderLock(tmp_path / "lock")
    lock.release()
    FolderLock(tmp_path / "lock").release()


def test_a_trial_that_cannot_be_kept_is_told(tmp_path):
    cells = SweepCache(tmp_path / "cells.jsonl", "mark")
    (tmp_path / "cells.jsonl").unlink()
    os.mkdir(tmp_path / "cells.jsonl")
    with pytest.raises(InputError, match=r"cells.jsonl: cannot be written \(Is a directory\)"):
        cells.add(_trial())


def _trial():
    import numpy as np

    from spk.classify.features import LayerSet
    from spk.classify.selection.candidates import Candidate

    known = dict.fromkeys(Candidate.__dataclass_fields__, 0)
    layers = LayerSet((0,))
    return Candidate(**{**known, "layers": layers, "correct": np.ones(1, bool), "notes": ()})


def test_a_place_that_cannot_be_made_is_told(tmp_path, jobs):
    (tmp_path / "file").write_text("")
    store = next(job for job in jobs if job.name == "pack").line.split()[2]
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        pack(store, tmp_path / "file" / "below" / "packed.h5")
    with pytest.raises(InputError, match=r"cannot be written \(No such file or directory\)"):
        check_free_space(tmp_path / "absent", 1)


def test_a_session_s_folder_that_goes_is_told(tmp_path):
    task = sessions.Task("S1", (), {}, {})
    asked = sessions.TrainingPlan(None, sessions.FinetuneConfig(), "random", {0: task}, ("S1",))
    with pytest.raises(InputError, match=r"cannot be written \(No such file or directory\)"):
        sessions._write_task_file(tmp_path / "version_0", task, asked)


def test_a_finished_session_that_is_gone_is_told(tmp_path):
    tasks = {0: sessions.Task("S1", (), {}, {}), 1: sessions.Task("S2", (), {}, {})}
    asked = sessions.TrainingPlan(
        None, sessions.FinetuneConfig(log_dir=str(tmp_path)), "random", tasks, ("S1", "S2")
    )
    with pytest.raises(InputError, match="2 finished sessions have disappeared, first 'S1', exp"):
        run._check_still_there(asked, [], False)
    run._check_still_there(asked, ["S1", "S2"], False)  # another process has them
    run._check_still_there(asked, [], True)


@pytest.mark.parametrize(("problem", "heard"), [(FileNotFoundError, 0), (ValueError, 1)])
def test_only_what_training_tells_itself_is_not_heard_of_threads(monkeypatch, problem, heard):
    told = []

    def fail():
        raise problem

    monkeypatch.setattr(threading, "excepthook", told.append)
    with _quiet():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert len(told) == heard
    assert threading.excepthook == told.append
