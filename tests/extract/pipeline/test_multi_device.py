"""Several devices on one run; real processes on the CPU."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess

import numpy as np
import pytest
from helpers import noise_meeting
from joblib.externals.loky import get_reusable_executor

from spk.common.errors import InputError
from spk.extract.encoder.device import choose_devices
from spk.extract.options import ExtractOptions
from spk.extract.pipeline.batching import make_batches
from spk.extract.pipeline.multi_device import (
    MultiDeviceRun,
    WorkerConnection,
    WorkerSpec,
    _Worker,
    worker_main,
)
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


def test_a_killed_process_ends_the_run_and_the_next_one_completes_it(
    corpus, alone, tmp_path, monkeypatch
):
    options, table = corpus
    store, hear, killed = tmp_path / "store", MultiDeviceRun._handle_message, []

    def killing(self, worker, *others):
        goes_on = hear(self, worker, *others)
        if worker.encoded[0] and not killed:
            killed.append(worker.name)
            worker.process.kill()
        return goes_on

    monkeypatch.setattr(MultiDeviceRun, "_handle_message", killing)
    told = r"cpu \(\d\): the process of this device ended early with signal 9, .*; run the same"
    with pytest.raises(InputError, match=told):
        run_extraction(table, store, options)
    assert killed
    assert multiprocessing.active_children() == []
    assert unnamed(store) == []
    committed = rows_of(store)  # of the other one
    assert len(committed) < SEGMENTS - 1
    assert run_extraction(table, store, replace(options, device="cpu")).new == SEGMENTS - 1 - len(
        committed
    )
    assert_same(rows_of(store), alone)


def unnamed(store):
    return [path.name for path in (store / "shards").iterdir() if path.name.startswith(".writing-")]


# A worker is started anew from this script, so what it changes holds in each worker too.
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
SLOW_RUN = """
from spk.extract import cli
if __name__ == "__main__":
    cli.main()
"""


@pytest.fixture
def slow_run(corpus, tmp_path):
    """Return a function that starts a run whose workers commit every two rows, and slowly."""
    options, table = corpus
    write_table(table, tmp_path / "table.csv")
    (tmp_path / "slow.py").write_text(SLOW + SLOW_RUN)
    words = ["table.csv", "store", "--audio-root", options.audio_root, "--encoder", "demo"]
    words += ["--device", "cpu,cpu", "--batch-seconds", "1.5", "--store-dtype", "float32"]
    command = [sys.executable, "slow.py", *words, "--workers", "1"]
    started = []

    def start():
        process = subprocess.Popen(
            command, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        while not any(tmp_path.glob("store/shards/0*.h5")) and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


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


def test_a_full_disk_in_one_process_is_told_and_the_other_commits(
    corpus, alone, tmp_path, monkeypatch
):
    options, table = corpus
    write_table(table, tmp_path / "table.csv")
    full = """
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
    (tmp_path / "full.py").write_text(full + SLOW_RUN)
    words = ["table.csv", "store", "--audio-root", options.audio_root, "--encoder", "demo"]
    words += ["--device", "cpu,cpu", "--batch-seconds", "1.5", "--store-dtype", "float32"]
    done = subprocess.run(
        [sys.executable, "full.py", *words, "--workers", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert "store/shards: " in line
    assert "bytes are free on the disk, expected" in line
    store = tmp_path / "store"
    committed = rows_of(store)
    assert len(committed) < SEGMENTS - 1
    assert_same(committed, {name: alone[name] for name in committed})
    assert unnamed(store) == []
    run_extraction(table, store, options)
    assert_same(rows_of(store), alone)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_ends_them_in_good_order(corpus, alone, tmp_path, kind):
    options, table = corpus
    write_table(table, tmp_path / "table.csv")
    words = ["--audio-root", options.audio_root, "--encoder", "demo", "--device", "cpu,cpu"]
    words += ["--batch-seconds", "1.5", "--store-dtype", "float32", "--workers", "1"]
    code = "from spk.extract import cli; cli.main()"
    command = [sys.executable, "-c", code, str(tmp_path / "table.csv"), str(tmp_path / "store")]
    with subprocess.Popen(
        [*command, *words], start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as process:
        while len(group(process.pid)) < 3 and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, kind)  # as a terminal or scancel does: to all of them
        _, said = process.communicate(timeout=180)
        assert process.returncode == 128 + kind
    assert said.splitlines() == [
        "stopping after this batch; once more to stop at once",
        "interrupted; run the same command to go on",
    ]
    limit = time.monotonic() + 30  # a process that has said its last word may take a moment to go
    while group(process.pid) and time.monotonic() < limit:
        time.sleep(0.05)
    assert group(process.pid) == []
    kept = rows_of(tmp_path / "store")
    assert_same(kept, {name: alone[name] for name in kept})


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
    """Return a function that runs a worker here on all batches and returns what it says."""
    from spk.extract.encoder.encoder import load_encoder

    options, table = corpus
    options = replace(options, device="cpu")
    encoder = load_encoder("demo")
    known = {
        "name": "here",
        "options": options,
        "layers": (0, 5),
        "provenance": encoder.provenance(),
        "store": str(tmp_path / "store"),
        "config": configuration(encoder, (0, 5), options),
        "versions": {},
        "threads": 1,
        "begun": None,
    }
    StoreWriter(known["store"], known["config"]).close()  # as the parent has made it

    def run(**changes):
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        batches = make_batches(choose_segments(table, options), 1.5)
        for batch in [*batches, None]:
            ours.send(batch)
        worker_main(WorkerSpec(**{**known, **changes}), theirs)
        theirs.close()
        said = []
        while ours.poll():
            try:
                said.append(ours.recv())
            except (EOFError, ConnectionResetError):  # the latter where it left batches unread
                break
        return batches, said

    return run


def shards(said):
    return [what for kind, what in said if kind == "shard"]


def test_a_worker_asks_writes_its_rows_and_says_that_it_ended(worker, tmp_path):
    batches, said = worker()
    kinds = [kind for kind, _ in said]
    assert kinds.count("next") == len(batches) + 1
    assert kinds[-4:] == ["shard", "progress", "profile", "ended"]
    (shard,) = shards(said)
    asked = [
        one.segment_id for batch in batches for one in batch if one.start
    ]  # the first is silent
    assert sorted(shard.segment_ids) == sorted(asked)
    assert [*shard.rejected.values()] == ["silent"]
    assert [path.name for path in (tmp_path / "store" / "shards").iterdir()] == [shard.temporary]
    assert said[-3][1][1][0] == SEGMENTS - 1


def test_a_worker_whose_parent_is_gone_leaves_nothing(worker, monkeypatch, tmp_path):
    def gone(self, kind, said=None):
        if kind == "shard":
            assert len(unnamed(tmp_path / "store")) == 1
            raise BrokenPipeError
        send(self, kind, said)

    send = WorkerConnection.send
    monkeypatch.setattr(WorkerConnection, "send", gone)
    worker()
    assert unnamed(tmp_path / "store") == []


def test_a_bug_in_a_worker_names_the_segment_and_keeps_what_was_before(worker, monkeypatch):
    from spk.extract.encoder.encoder import Encoder

    submit, calls = Encoder.encode_async, []

    def broken(self, waveforms, *settings):
        calls.append(None)
        if len(calls) > 2:
            raise RuntimeError("shapes differ")
        return submit(self, waveforms, *settings)

    monkeypatch.setattr(Encoder, "encode_async", broken)
    batches, said = worker()
    (message, trace) = said[-1][1]
    assert said[-1][0] == "failed"
    assert message.startswith(batches[2][0].segment_id)
    assert message.endswith("encoding failed")
    assert "shapes differ" in trace
    usable = [
        one.segment_id for one in (*batches[0], *batches[1]) if one.start
    ]  # the first is silent
    (shard,) = shards(said)
    assert sorted(shard.segment_ids) == sorted(usable)


def test_a_worker_that_is_told_to_stop_twice_sends_its_batch_first(worker, monkeypatch):
    from spk.extract.encoder.encoder import Encoder

    submit, calls = Encoder.encode_async, []

    def stopped(self, *settings):
        calls.append(None)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return submit(self, *settings)

    def killed(*_):
        raise AssertionError("the second signal kills")

    monkeypatch.setattr(Encoder, "encode_async", stopped)
    before = signal.signal(signal.SIGTERM, killed)
    try:
        batches, said = worker()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(calls) == 3
    (shard,) = shards(said)
    assert len(shard.segment_ids) == sum(len(batch) for batch in batches[:3]) - len(shard.rejected)
    assert "stopped by signal 15" in said[-1][1][0]


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
    assert "'cpu,cpu' in a script that the process of each device imports anew" in ended.stderr
    assert 'expected extract() under `if __name__ == "__main__":`; put it there' in ended.stderr


def test_an_encoder_that_changed_meanwhile_is_refused(worker):
    _, said = worker(provenance={"encoder": "another"})
    assert said == [("failed", (said[0][1][0],))]
    assert "demo: the encoder on here is another than the run began with" in said[0][1][0]


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (("s01 and 2 more in its batch: encoding failed", "Traceback: shapes"), RuntimeError),
        (("s00: silent: all samples are 0; leave out --strict",), InputError),
    ],
)
def test_what_a_worker_says_it_failed_with_ends_the_run(corpus, tmp_path, monkeypatch, said, kind):
    options, table = corpus
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    theirs.send(("failed", said))

    @contextmanager
    def started(self, most):
        yield [_Worker("cpu (1)", multiprocessing.current_process(), ours)]

    monkeypatch.setattr(MultiDeviceRun, "_started", started)
    with pytest.raises(kind, match=said[0]) as found:
        run_extraction(table, tmp_path / "store", options)
    assert ("Traceback: shapes" in str(found.value.__cause__)) == (kind is RuntimeError)


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
