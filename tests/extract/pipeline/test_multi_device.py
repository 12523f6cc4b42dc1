"""Several devices on one run; real processes on the CPU."""

import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess

import numpy as np
import pytest
from helpers import noise_meeting, without_next_steps
from joblib.externals.loky import get_reusable_executor

from spk.common.engine.work import Done
from spk.common.errors import InputError
from spk.extract.audio import Segment
from spk.extract.encoder.device import choose_devices
from spk.extract.options import ExtractOptions
from spk.extract.pipeline import multi_device
from spk.extract.pipeline.batching import make_batches
from spk.extract.pipeline.unit_worker import (
    UnitResult,
    UnitSpec,
    UnitWorker,
    WorkerSpec,
    extract_unit,
)
from spk.extract.pipeline.units import extraction_unit
from spk.extract.planning import choose_segments
from spk.extract.run import configuration, run_extraction
from spk.extract.store.reader import FeatureStore
from spk.extract.store.shard_writer import UnnamedShard
from spk.extract.store.writer import StoreWriter
from spk.manifests.table import write_table

pytestmark = pytest.mark.slow

SEGMENTS = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return options and a table of segments of one recording, one of them silent."""
    root = tmp_path_factory.mktemp("corpus")
    lengths = [0.4 + 0.05 * (i * 7 % 11) for i in range(SEGMENTS)]
    starts = [0.0, *(0.5 + np.cumsum(lengths[1:-1])), 0.6]
    spans = [(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    table = noise_meeting(root, "a.wav", spans, silent=0.5)
    options = ExtractOptions(
        encoder="demo",
        audio_root=str(root),
        device="cpu,cpu",
        store_dtype="float32",
        batch_seconds=1.5,
        workers=1,
    )
    return options, table


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """Return what one device writes: {segment_id: (layers, dim)}."""
    options, table = corpus
    store = tmp_path_factory.mktemp("alone") / "store"
    run_extraction(table, store, replace(options, device="cpu"))
    return rows_of(store)


def rows_of(path):
    store = FeatureStore.open(path)
    ids = store.ids().tolist()
    values = np.stack([store.read(ids, layer) for layer in store.layers], axis=1)
    return dict(zip(ids, values, strict=True))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.fixture(autouse=True)
def no_children():
    """End the processes that joblib keeps from tests before: here children are counted."""
    get_reusable_executor().shutdown(wait=True)


def test_two_devices_write_what_one_does(corpus, alone, tmp_path, monkeypatch):
    options, table = corpus
    file = tmp_path / "profile.txt"
    options = replace(options, profile=str(file), verify=4)
    summary = run_extraction(table, tmp_path / "store", options)
    assert_same(rows_of(tmp_path / "store"), alone)
    assert (summary.new, summary.rejected) == (SEGMENTS - 1, {"silent": 1})
    assert summary.seconds == pytest.approx(
        (table["end"] - table["start"]).drop(index=0).sum(), rel=1e-6
    )
    assert summary.difference < 1e-5
    page = file.read_text()
    assert "float32 on cpu, cpu" in page
    for name in ("cpu (1)", "cpu (2)"):
        assert f"{name} MainThread" in page
    assert multiprocessing.active_children() == []
    monkeypatch.setattr(BaseProcess, "start", None)
    assert run_extraction(table, tmp_path / "store", options).new == 0


def unnamed(store):
    return [path.name for path in (store / "shards").iterdir() if path.name.startswith(".writing-")]


# A worker is started anew from a script, so what that changes holds in each worker too.
SLOW = """
import sys, time
from spk.extract.store.shard_writer import ShardWriter
old, written = ShardWriter.__init__, ShardWriter._written
def often(self, *given, **settings):
    old(self, *given, **{**settings, "commit_rows": 2})
def slowly(self, temporary):
    shard = written(self, temporary)
    time.sleep(0.3)  # on disk, and without a name
    return shard
ShardWriter.__init__, ShardWriter._written = often, slowly
"""
KILLS = """
import os
from spk.extract.pipeline import batching, multi_device
multi_device.LEAST_SECONDS = 0  # several units for so few segments
read = batching.read_segment
def fatal(segment, reading):
    if segment.segment_id == {segment_id!r} and not ({once} and os.path.exists("killed")):
        open("killed", "a").close()
        os.kill(os.getpid(), 9)
    return read(segment, reading)
batching.read_segment = fatal
"""
READS = """
import time
from spk.extract.pipeline import batching
read = batching.read_segment
def slowly(segment, reading):
    open("reading", "a").close()
    time.sleep(0.2)
    return read(segment, reading)
batching.read_segment = slowly
"""
FULL = """
import errno, os
from pathlib import Path
sync = os.fsync
def fsync(handle):  # full for the process that comes first with a shard, for good
    if "/shards/.writing-" in os.readlink(f"/proc/self/fd/{handle}"):
        try:
            Path("full").open("x").write(str(os.getpid()))
        except FileExistsError:
            pass
        if Path("full").read_text() in (str(os.getpid()), ""):
            raise OSError(errno.ENOSPC, "No space left on device")
    sync(handle)
os.fsync = fsync
"""
RUN = """
from spk.extract import cli
if __name__ == "__main__":
    cli.main()
"""


@pytest.fixture
def start(corpus, tmp_path):
    """Return a function that starts the command on two devices, in a script that begins so."""
    options, table = corpus
    write_table(table, tmp_path / "table.csv")
    words = ["table.csv", "store", "--audio-root", options.audio_root, "--encoder", "demo"]
    words += ["--device", "cpu,cpu", "--batch-seconds", "1.5", "--store-dtype", "float32"]
    started = []

    def start(changes=""):
        (tmp_path / "script.py").write_text(changes + RUN)
        process = subprocess.Popen(
            [sys.executable, "script.py", *words, "--workers", "1"],
            cwd=tmp_path,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def slow_run(start, tmp_path):
    """Return a function that starts a run whose workers write every two rows, and slowly."""

    def begin():
        process = start(SLOW)
        while not any(tmp_path.glob("store/shards/0*.h5")) and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
        return process

    return begin


def said_by(process):
    """Return what a run says on stdout and on stderr, to its end."""
    said, errors = process.communicate(timeout=180)
    return said, without_next_steps(errors)


def test_a_killed_process_is_made_anew_and_its_unit_is_tried_again(corpus, alone, start, tmp_path):
    _, table = corpus
    process = start(KILLS.format(segment_id=table["segment_id"][7], once=True))
    said, errors = said_by(process)
    assert process.returncode == 3  # a segment is silent
    told = r"cpu \(\d\): the process of this device ended early with signal 9; tried again: "
    assert re.fullmatch(told + r"\d+ segments of a.wav\n", errors)
    assert "; 1 try of units was lost and made again; " in said
    assert_same(rows_of(tmp_path / "store"), alone)
    assert unnamed(tmp_path / "store") == []


def test_a_unit_that_kills_its_process_is_named_and_the_rest_is_done(
    corpus, alone, start, tmp_path
):
    options, table = corpus
    process = start(KILLS.format(segment_id=table["segment_id"][7], once=False))
    said, errors = said_by(process)
    assert process.returncode == 3
    *tries, last = errors.splitlines()
    assert len(tries) == 3
    assert re.fullmatch(r"failed: \d+ segments of a.wav \(its process died in .* 4 tries\)", last)
    assert "; 1 unit failed; run the same command to try again; " in said
    committed = rows_of(tmp_path / "store")
    assert len(committed) >= SEGMENTS / 2
    assert_same(committed, {name: alone[name] for name in committed})
    assert run_extraction(table, tmp_path / "store", options).new == len(alone) - len(committed)
    assert_same(rows_of(tmp_path / "store"), alone)


def test_workers_of_a_killed_parent_commit_nothing_while_the_next_run_has_the_store(
    corpus, alone, tmp_path, slow_run
):
    options, table = corpus
    store, process = tmp_path / "store", slow_run()
    process.kill()
    process.wait()
    orphans = group(process.pid)
    with StoreWriter(store, FeatureStore.open(store).config) as writer:  # the next one
        there = sorted(path.name for path in store.glob("shards/0*.h5"))
        assert set(rows_of(store)) == writer.done
        limit = time.monotonic() + 60
        while group(process.pid) and time.monotonic() < limit:
            time.sleep(0.05)
        assert sorted(path.name for path in store.glob("shards/0*.h5")) == there
    assert orphans
    assert group(process.pid) == []
    assert unnamed(store) == []
    assert run_extraction(table, store, options).new == SEGMENTS - 1 - len(writer.done)
    assert_same(rows_of(store), alone)


def test_killed_at_any_moment_with_all_its_processes_nothing_is_lost(
    corpus, alone, tmp_path, slow_run
):
    options, table = corpus
    store, committed = tmp_path / "store", {}
    for pause in (0.0, 0.2, 0.4):
        process = slow_run()
        time.sleep(pause)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = rows_of(store)
        assert_same({name: now[name] for name in committed}, committed)
        assert_same(now, {name: alone[name] for name in now})
        committed = now
        if len(committed) == SEGMENTS - 1:
            break
    run_extraction(table, store, options)
    assert_same(rows_of(store), alone)
    assert unnamed(store) == []


def test_a_shard_with_rows_that_are_committed_is_refused(tmp_path, store_config, row):
    with StoreWriter(tmp_path / "store", store_config) as writer:
        writer.add("s", np.ones((3, 4)), **row)
        writer.commit()
        again = UnnamedShard("absent", f"{'0' * 8}-{'0' * 64}.h5", ("s", "t"), {})
        with pytest.raises(InputError, match="'s' has features already"):
            writer.publish(again)
        assert writer.done == {"s"}


def test_a_closed_writer_leaves_the_next_ones_files_alone(tmp_path, store_config):
    writer = StoreWriter(tmp_path / "store", store_config)
    writer.close()
    with StoreWriter(tmp_path / "store", store_config):
        (tmp_path / "store" / "shards" / ".writing-next").touch()
        writer.close()
        assert unnamed(tmp_path / "store") == [".writing-next"]
    assert unnamed(tmp_path / "store") == []


def test_a_full_disk_in_one_process_is_told_and_the_other_commits(corpus, alone, start, tmp_path):
    options, table = corpus
    process, store = start(FULL), tmp_path / "store"
    _, errors = said_by(process)
    assert process.returncode == 1, errors
    (line,) = errors.splitlines()
    assert "store/shards: " in line
    assert "bytes are free on the disk, expected" in line
    committed = rows_of(store)
    assert len(committed) < SEGMENTS - 1
    assert_same(committed, {name: alone[name] for name in committed})
    assert unnamed(store) == []
    run_extraction(table, store, options)
    assert_same(rows_of(store), alone)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_ends_them_in_good_order(alone, start, tmp_path, kind):
    process = start(READS)
    while not (tmp_path / "reading").exists() and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, kind)  # as a terminal or scancel does: to all of them
    _, said = process.communicate(timeout=180)
    assert process.returncode == 128 + kind
    assert said.splitlines() == [
        "stopping after this batch; once more to stop at once",
        "interrupted; run the same command to resume",
    ]
    limit = time.monotonic() + 30  # a process that has said its last word may take a moment to go
    while group(process.pid) and time.monotonic() < limit:
        time.sleep(0.05)
    assert group(process.pid) == []
    committed = rows_of(tmp_path / "store")
    assert 0 < len(committed) < len(alone)
    assert_same(committed, {name: alone[name] for name in committed})


def group(leader):
    """Return the processes of a group that are at work, but for multiprocessing's own."""
    told = subprocess.run(
        ["ps", "-eo", "pid=,pgid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 3) for line in told.splitlines()]
    return [
        int(pid)
        for pid, pgid, state, args in rows
        if int(pgid) == leader and state[0] != "Z" and "resource_tracker" not in args
    ]


@pytest.fixture
def worker(corpus, tmp_path):
    """Return the batches of the corpus, and what a process needs to work on them."""
    from spk.extract.encoder.encoder import load_encoder

    options, table = corpus
    encoder = load_encoder("demo")
    store, config = str(tmp_path / "store"), configuration(encoder, (0, 5), options)
    StoreWriter(store, config).close()  # as the first process has made it
    spec = WorkerSpec(
        device="here",
        options=replace(options, device="cpu"),
        layers=(0, 5),
        provenance=encoder.provenance(),
        store=store,
        config=config,
        versions={},
        threads=1,
    )
    return make_batches(choose_segments(table, options), 1.5), spec


def unit_of(spec, batches, **settings):
    return extract_unit(UnitSpec(pickle.dumps(spec), spec.store), batches, **settings)


def usable(batches):
    return sorted(segment.segment_id for batch in batches for segment in batch if segment.start)


def test_a_unit_is_on_disk_without_a_name_when_it_is_done(worker, tmp_path):
    batches, spec = worker
    done = unit_of(spec, batches)
    assert (done.problem, done.trace) == ("", "")
    (shard,) = done.value.shards
    assert sorted(shard.segment_ids) == usable(batches)
    assert [*shard.rejected.values()] == ["silent"]
    assert [path.name for path in (tmp_path / "store" / "shards").iterdir()] == [shard.temporary]
    assert done.value.new == SEGMENTS - 1


def test_recordings_are_called_what_was_typed_wherever_the_process_began(
    worker, corpus, tmp_path, monkeypatch
):
    batches, spec = worker
    monkeypatch.chdir(tmp_path)
    typed = [
        [replace(segment, path=os.path.basename(segment.path)) for segment in batch]
        for batch in [*batches, [Segment("absent", "absent.wav", 1.0, 2.0)]]
    ]
    unit = extraction_unit(typed, "a store")
    begun = UnitSpec(pickle.dumps(spec), spec.store, folder=corpus[0].audio_root)
    with StoreWriter(spec.store, spec.config) as writer:
        done = extract_unit(begun, unit.payload)
        writer.publish(*done.value.shards)
    assert done.value.new == SEGMENTS - 1
    assert writer.rejections["absent"]["message"].startswith("absent.wav: cannot be read")
    gone = extract_unit(replace(begun, folder=str(tmp_path / "gone")), unit.payload)
    assert gone.problem.startswith(f"{tmp_path}/gone: is not seen on a machine of Ray (No such")


def test_a_bug_in_a_worker_names_the_segment_and_keeps_what_was_before(worker, monkeypatch):
    from spk.extract.encoder.encoder import Encoder

    submit, calls = Encoder.encode_async, []

    def broken(self, waveforms, *settings):
        calls.append(None)
        if len(calls) > 2:
            raise RuntimeError("shapes differ")
        return submit(self, waveforms, *settings)

    monkeypatch.setattr(Encoder, "encode_async", broken)
    batches, spec = worker
    done = unit_of(spec, batches)
    assert "shapes differ" in done.trace
    last = done.trace.splitlines()[-1]
    assert last.startswith(f"RuntimeError: {batches[2][0].segment_id}")
    assert last.endswith("encoding failed")
    (shard,) = done.value.shards
    assert sorted(shard.segment_ids) == usable(batches[:2])


def test_a_worker_that_is_to_stop_ends_after_its_batch(worker):
    batches, spec = worker
    asked = iter([False, False, False])
    done = unit_of(spec, batches, stop=lambda: next(asked, True))
    (shard,) = done.value.shards
    assert sorted(shard.segment_ids) == usable(batches[:3])


def test_a_process_learns_once_how_much_fits_into_the_devices_memory(worker, monkeypatch):
    import torch

    from spk.extract.encoder.encoder import Encoder

    submit = Encoder.encode_async

    def small(self, waveforms, *settings):
        if len(waveforms) > 1:
            raise torch.cuda.OutOfMemoryError("no room")
        return submit(self, waveforms, *settings)

    monkeypatch.setattr(Encoder, "encode_async", small)
    batches, spec = worker
    pairs = [batch for batch in batches if len(batch) == 2]
    process = UnitWorker(spec)
    notes = [process.encode_unit([batch], lambda: False).value.notes for batch in pairs[:2]]
    assert [len(lines) for lines in notes] == [1, 0]
    assert notes[0][0].startswith("here: a batch of 2 segments is too large")


def test_a_script_without_a_guard_is_refused_in_the_process_of_a_device(corpus, tmp_path):
    """What a process that is started does with a script that calls extract() as it is imported."""
    options, table = corpus
    write_table(table, tmp_path / "table.csv")
    script = f"""
if __name__ == "__main__":
    from multiprocessing import get_context
    get_context("spawn").Process(target=print).start()
else:
    from spk.extract import extract
    settings = dict(device=["cpu", "cpu"], encoder="demo", audio_root={options.audio_root!r})
    extract("table.csv", "store", **settings)
"""
    (tmp_path / "script.py").write_text(script)
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "'cpu,cpu' in a script that the process of each device imports again" in ended.stderr
    assert 'expected extract() under `if __name__ == "__main__":`; put it there' in ended.stderr


def test_an_encoder_that_changed_meanwhile_is_refused(worker):
    batches, spec = worker
    done = unit_of(replace(spec, provenance={"encoder": "another"}), batches)
    assert "demo: the encoder on here differs from the one that the run began with" in done.problem
    assert done.value.shards == ()


@pytest.fixture
def imitated(corpus, tmp_path, monkeypatch):
    """Return a function that runs the corpus with units that are done as it is told."""
    options, table = corpus

    def run(*dones):
        def run_on_devices(job, stop, log):
            for done, unit in zip(dones, job.units, strict=False):
                job.publish(unit, done)
            return False, []

        monkeypatch.setattr(multi_device, "run_on_devices", run_on_devices)
        monkeypatch.setattr(multi_device, "LEAST_SECONDS", 0)
        said = []
        return run_extraction(table, tmp_path / "store", options, log=said.append), said

    return run


def test_what_the_user_can_repair_ends_the_run(imitated):
    with pytest.raises(InputError, match="s00: silent: all samples are 0; leave out --strict"):
        imitated(Done(UnitResult(), problem="s00: silent: all samples are 0; leave out --strict"))


BUG = Done(UnitResult(), trace="Traceback: shapes\nRuntimeError: s01: encoding failed")


def test_a_bug_is_told_and_its_unit_has_failed(imitated):
    summary, said = imitated(Done(UnitResult(new=2, seconds=1.0, wall=1.0)), *[BUG] * 4)
    assert len(summary.failed) == 4
    assert sum("Traceback: shapes" in line for line in said) == 4
    assert [line.count("\n") for line in said[-4:]] == [0] * 4  # named at the end, without it
    assert all(line.endswith("(RuntimeError: s01: encoding failed)") for line in said[-4:])


def test_a_bug_that_leaves_no_unit_done_ends_the_run(imitated):
    with pytest.raises(RuntimeError, match="s01: encoding failed") as raised:
        imitated(*[BUG] * 4)
    assert "Traceback: shapes" in str(raised.value.__cause__)


def test_devices_are_listed(monkeypatch):
    assert choose_devices("cpu,cpu") == ["cpu", "cpu"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_devices("cuda:all") == ["cuda:0", "cuda:1"]
    with pytest.raises(InputError, match="'cuda:2' is not there, found 2 GPUs"):
        choose_devices("cuda:0,cuda:2")
    with pytest.raises(InputError, match=r"of types \['cpu', 'cuda'\], expected one type"):
        choose_devices("cpu,cuda:0")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InputError, match="'cuda' is not there, found 0 GPUs"):
        choose_devices("cuda:all")


def test_an_encoder_in_memory_has_one_device(corpus, tmp_path):
    from spk.extract.encoder.encoder import load_encoder

    options, table = corpus
    with pytest.raises(InputError, match="'cpu,cpu' beside an encoder that is loaded already"):
        run_extraction(table, tmp_path / "store", options, encoder=load_encoder("demo"))
