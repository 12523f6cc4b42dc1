"""Several devices on one run; real processes on the CPU."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess

import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.common.errors import InputError
from spk.extract.batches import make_batches
from spk.extract.device import choose_devices
from spk.extract.devices import Post, Team, _Worker, work
from spk.extract.options import Options
from spk.extract.plan import choose_segments
from spk.extract.run import extract
from spk.extract.store import FeatureStore, StoreWriter
from spk.extract.writing import Writing
from spk.manifests.table import check_table, write_table

SEGMENTS = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return options and a table of segments of one recording, one of them silent."""
    root = tmp_path_factory.mktemp("corpus")
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 30 * 16000)
    samples[: 16000 // 2] = 0.0
    soundfile.write(root / "a.wav", samples, 16000)
    lengths = [0.4 + 0.05 * (i * 7 % 11) for i in range(SEGMENTS)]
    starts = [0.0, *(0.5 + np.cumsum(lengths[1:-1])), 0.6]
    rows = [
        {"segment_id": f"s{i:02d}", "audio": "a.wav", "start": start, "end": start + length}
        for i, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    table = check_table(pd.DataFrame(rows).assign(speaker="a", session="S"))
    options = Options(
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
    extract(table, store, replace(options, device="cpu"))
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


def test_two_devices_write_what_one_does(corpus, alone, tmp_path, monkeypatch):
    options, table = corpus
    file = tmp_path / "profile.txt"
    options = replace(options, profile=str(file), verify=4)
    summary = extract(table, tmp_path / "store", options)
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
    assert extract(table, tmp_path / "store", options).new == 0


def test_a_killed_process_ends_the_run_and_the_next_one_completes_it(
    corpus, alone, tmp_path, monkeypatch
):
    options, table = corpus
    store, add, killed = tmp_path / "store", StoreWriter.add, []

    def killing(self, *row, **rest):
        add(self, *row, **rest)
        if not killed:
            killed.append(multiprocessing.active_children()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(StoreWriter, "add", killing)
    told = r"cpu \(\d\): the process of this device ended early with signal 9, .*; run the same"
    with pytest.raises(InputError, match=told):
        extract(table, store, options)
    assert multiprocessing.active_children() == []
    kept = rows_of(store)
    assert 0 < len(kept) < SEGMENTS - 1
    assert extract(table, store, replace(options, device="cpu")).new == SEGMENTS - 1 - len(kept)
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
def worker(corpus):
    """Return a function that runs a worker here on all batches and returns what it says."""
    from spk.extract.encoder import load_encoder

    options, table = corpus
    options = replace(options, device="cpu")
    provenance = load_encoder("demo").provenance()

    def run(**changes):
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        batches = make_batches(choose_segments(table, options), 1.5)
        for batch in [*batches, None]:
            ours.send(batch)
        known = {"options": options, "provenance": provenance, "layers": (0, 5)}
        work(Post(**{"name": "here", "threads": 1, "begun": None, **known, **changes}), theirs)
        theirs.close()
        said = []
        while ours.poll():
            try:
                said.append(ours.recv())
            except (EOFError, ConnectionResetError):  # the latter where it left batches unread
                break
        return batches, said

    return run


def test_a_worker_asks_sends_whole_batches_and_says_that_it_ended(worker):
    batches, said = worker()
    kinds = [kind for kind, _ in said]
    assert kinds.count("next") == len(batches) + 1
    assert kinds[-2:] == ["spans", "ended"]
    sent = [[row[0] for row in rows] for kind, rows in said if kind == "rows"]
    whole = [[one.segment_id for one in batch if one.segment_id != "s00"] for batch in batches]
    assert sent == [ids for ids in whole if ids]
    assert [what[:2] for kind, what in said if kind == "rejected"] == [("s00", "silent")]


def test_a_bug_in_a_worker_names_the_segment_and_keeps_what_was_before(worker, monkeypatch):
    from spk.extract.encoder import Encoder

    submit, calls = Encoder.submit, []

    def broken(self, waveforms, *settings):
        calls.append(None)
        if len(calls) > 2:
            raise RuntimeError("shapes differ")
        return submit(self, waveforms, *settings)

    monkeypatch.setattr(Encoder, "submit", broken)
    batches, said = worker()
    (message, trace) = said[-1][1]
    assert said[-1][0] == "failed"
    assert message.startswith(batches[2][0].segment_id)
    assert message.endswith("encoding failed")
    assert "shapes differ" in trace
    assert len([kind for kind, _ in said if kind == "rows"]) == 2


def test_a_worker_that_is_told_to_stop_twice_sends_its_batch_first(worker, monkeypatch):
    from spk.extract.encoder import Encoder

    submit, calls = Encoder.submit, []

    def stopped(self, *settings):
        calls.append(None)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return submit(self, *settings)

    def killed(*_):
        raise AssertionError("the second signal kills")

    monkeypatch.setattr(Encoder, "submit", stopped)
    before = signal.signal(signal.SIGTERM, killed)
    try:
        _, said = worker()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len([kind for kind, _ in said if kind == "rows"]) == len(calls) == 3
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
    from spk.extract.options import Options
    from spk.extract.run import extract
    from spk.manifests.table import read_table
    options = Options(device="cpu,cpu", encoder="demo", audio_root={options.audio_root!r})
    extract(read_table("table.csv"), "store", options)
"""
    (tmp_path / "script.py").write_text(script)
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "'cpu,cpu' in a script that the process of each device imports anew" in ended.stderr
    assert 'expected extract() under `if __name__ == "__main__":`; put it there' in ended.stderr


def test_a_workers_queue_is_short(worker, monkeypatch):
    seen = []
    made = Writing.__init__

    def noting(self, *settings):
        made(self, *settings)
        seen.append(self._blocks.maxsize)

    monkeypatch.setattr(Writing, "__init__", noting)
    worker()
    assert seen == [1]


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

    monkeypatch.setattr(Team, "_started", started)
    with pytest.raises(kind, match=said[0]) as found:
        extract(table, tmp_path / "store", options)
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
    from spk.extract.encoder import load_encoder

    options, table = corpus
    with pytest.raises(InputError, match="'cpu,cpu' beside an encoder that is loaded already"):
        extract(table, tmp_path / "store", options, encoder=load_encoder("demo"))
