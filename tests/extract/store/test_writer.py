"""One writes, many read, and no committed row is ever lost, doubled or changed."""

import errno
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spk.common import files
from spk.common.errors import InputError
from spk.extract.store import shard_writer
from spk.extract.store.reader import FeatureStore
from spk.extract.store.shard import read_shard
from spk.extract.store.writer import StoreWriter

Make = Callable[..., np.ndarray]
IDS = [f"s{number}" for number in range(10)]
KILLS = 12

WRITER = """
import json, sys
import numpy as np
from spk.extract.store.writer import StoreWriter

path, config, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
shape = (len(config["layers"]), config["dim"])
row = dict(duration=1.5, frames=74, audio_bytes=96000, audio_crc32=7)
with StoreWriter(path, config, commit_rows=5) as writer:
    print("open", flush=True)
    for number in range(count):
        name = f"s{number}"
        if name in writer.done or name in writer.rejected:
            continue
        if number % 7 == 3:
            writer.reject(name, "silent", "all samples are 0")
        else:
            writer.add(name, np.full(shape, number, "f4"), **row)
        if name in writer.done:
            print(name, flush=True)  # acknowledged: it must be there after a kill
"""


def start_writer(path: Path, config: dict[str, Any], count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), json.dumps(config), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def contents(path: Path) -> dict[str, Any]:
    store = FeatureStore.open(path)
    values = {layer: store.read(store.ids(), layer).tolist() for layer in store.layers}
    rows = {name: column.tolist() for name, column in store.rows().items()}
    return {"values": values, "rows": rows, "rejected": store.rejected()}


def test_read_gives_the_asked_order_at_the_asked_layer(tmp_path: Path, make_store: Make) -> None:
    features = make_store(tmp_path / "a", IDS)
    store = FeatureStore.open(tmp_path / "a")
    asked = [9, 0, 5, 5, 3]
    found = store.read([IDS[place] for place in asked], 5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, features[asked, 2])
    assert store.read([], 5).shape == (0, 4)
    assert (len(store), "s3" in store, "s99" in store) == (10, True, False)


def test_ids_and_rows_stand_in_commit_order(tmp_path: Path, make_store: Make) -> None:
    order = list(reversed(IDS))
    make_store(tmp_path / "a", order, commit_rows=3)
    store = FeatureStore.open(tmp_path / "a")
    assert store.ids().tolist() == order
    assert len(list((tmp_path / "a" / "shards").iterdir())) == 4
    rows = store.rows()
    assert rows["segment_id"].tolist() == order
    assert {name: column[0].item() for name, column in rows.items() if name != "segment_id"} == {
        "duration": 1.5,
        "frames": 74,
        "audio_bytes": 96000,
        "audio_crc32": 0xFFFFFFFF,
        "audio_digest": 0,
    }


def test_frames_of_each_segment_come_back(
    tmp_path: Path, store_config: dict[str, Any], row: dict[str, Any]
) -> None:
    config = {**store_config, "kind": "frames", "dtype": "float32"}
    draws = np.random.default_rng(1)
    features = {f"s{n}": draws.normal(size=(n, 3, 4)).astype(np.float32) for n in (1, 7, 2)}
    with StoreWriter(tmp_path / "a", config, commit_rows=2) as writer:
        for name, values in features.items():
            writer.add(name, values, **row)
    store = FeatureStore.open(tmp_path / "a")
    for name, values in features.items():
        np.testing.assert_array_equal(store.read_frames(name, 2), values[:, 1])
    with pytest.raises(InputError, match="kind is 'frames', expected 'pooled'; use read_frames"):
        store.read(["s1"], 2)


def test_reads_that_are_impossible_are_refused(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    store = FeatureStore.open(tmp_path / "a")
    with pytest.raises(InputError, match=r"2 of 3 segments have no features, first 'x'.*extract"):
        store.read(["s1", "x", "y"], 5)
    with pytest.raises(InputError, match=r"layer is 1, expected one of \[0, 2, 5\]"):
        store.read(["s1"], 1)
    with pytest.raises(InputError, match="kind is 'pooled', expected 'frames'"):
        store.read_frames("s1", 0)
    with pytest.raises(InputError, match=r"no store\.json there"):
        FeatureStore.open(tmp_path)


def test_two_runs_are_one_run(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "one", IDS, commit_rows=5)
    make_store(tmp_path / "two", IDS[:5], commit_rows=5)
    make_store(tmp_path / "two", IDS[5:], commit_rows=5)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    names = [sorted(p.name for p in (tmp_path / x / "shards").iterdir()) for x in ("one", "two")]
    assert names[0] == names[1]


def test_done_and_rejected_are_known_to_the_next_writer(
    tmp_path: Path, store_config: dict[str, Any], row: dict[str, Any]
) -> None:
    with StoreWriter(tmp_path / "a", store_config) as writer:
        writer.add("good", np.ones((3, 4)), **row)
        writer.reject("late", "unreadable", "no such file")
        writer.reject("bad", "silent", "all samples are 0")
        assert (writer.done, writer.rejected) == (set(), {})
        writer.commit()
        assert (writer.done, set(writer.rejected)) == ({"good"}, {"late", "bad"})
    with StoreWriter(tmp_path / "a", store_config) as writer:
        assert writer.done == {"good"}
        assert writer.rejected == {"late": "unreadable", "bad": "silent"}
        writer.add("late", np.ones((3, 4)), **row)
        writer.commit()
        assert writer.rejected == {"bad": "silent"}
    assert FeatureStore.open(tmp_path / "a").rejected() == [
        {"segment_id": "bad", "code": "silent", "message": "all samples are 0"}
    ]


def test_a_second_row_of_an_id_is_refused(
    tmp_path: Path, store_config: dict[str, Any], row: dict[str, Any]
) -> None:
    with StoreWriter(tmp_path / "a", store_config) as writer:
        for _ in range(2):  # waiting, then committed
            if "s" not in writer.done:
                writer.add("s", np.ones((3, 4)), **row)
            with pytest.raises(InputError, match="'s' has features already"):
                writer.add("s", np.ones((3, 4)), **row)
            with pytest.raises(InputError, match="'s' has features already"):
                writer.reject("s", "silent", "")
            writer.commit()


def test_ids_given_twice_are_reported_at_open(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS[:4])
    make_store(tmp_path / "b", IDS[3:5])
    shard = next((tmp_path / "b" / "shards").iterdir())
    shutil.copy(shard, tmp_path / "a" / "shards")
    with pytest.raises(InputError, match="1 segment has features twice, first 's3' in"):
        FeatureStore.open(tmp_path / "a")


def test_another_configuration_is_refused_with_the_keys_that_differ(
    tmp_path: Path, make_store: Make
) -> None:
    make_store(tmp_path / "a", IDS)
    told = re.escape("(channel: '0', asked 'mean'; dim: 4, asked 5; window: 'nothing', asked 9)")
    with pytest.raises(InputError, match=told):
        make_store(tmp_path / "a", ["new"], channel="mean", dim=5, window=9)
    make_store(tmp_path / "a", ["new"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "pool"}, r"kind is 'pool', expected one of \('pooled', 'frames'\)"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"layers": [2, 1]}, r"layers are \[2, 1\], expected ascending"),
        ({"layers": []}, r"layers are \[\]"),
        ({"dim": 0}, "dim is 0"),
        ({"rate": np.int64(3)}, "configuration is not JSON"),
    ],
)
def test_a_configuration_that_makes_no_store_is_refused(
    tmp_path: Path, store_config: dict[str, Any], change: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        StoreWriter(tmp_path / "a", {**store_config, **change})
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("features", "told"),
    [
        (np.ones((4, 3)), r"shape \(4, 3\), expected \(3, 4\)"),
        (np.where(np.eye(3, 4) > 0, np.nan, 1), "'s' hold 3 values not finite"),
        (np.full((3, 4), -65520.0), "reach 65520, expected at most 65504.*dtype float32"),
    ],
)
def test_features_that_cannot_be_kept_are_refused(
    tmp_path: Path,
    store_config: dict[str, Any],
    row: dict[str, Any],
    features: np.ndarray,
    told: str,
) -> None:
    with StoreWriter(tmp_path / "a", store_config) as writer:
        with pytest.raises(InputError, match=told):
            writer.add("s", features, **row)
        writer.add("s", np.full((3, 4), 65504), **row)  # the largest float16
    assert FeatureStore.open(tmp_path / "a").read(["s"], 0).max() == 65504


def test_float32_keeps_what_float16_cannot(tmp_path: Path, make_store: Make, row: Any) -> None:
    make_store(tmp_path / "a", IDS, dtype="float32")
    config = FeatureStore.open(tmp_path / "a").config
    with StoreWriter(tmp_path / "a", config) as writer:
        writer.add("large", np.full((3, 4), 1e9), **row)
    assert FeatureStore.open(tmp_path / "a").read(["large"], 0).tolist() == [[1e9] * 4]


def test_rows_are_committed_by_number_and_by_time(
    tmp_path: Path, store_config: dict[str, Any], row: dict[str, Any]
) -> None:
    with StoreWriter(tmp_path / "a", store_config, commit_rows=2) as writer:
        writer.add("s0", np.ones((3, 4)), **row)
        assert not writer.done
        writer.reject("s1", "silent", "")
        assert writer.done == {"s0"}
    with StoreWriter(tmp_path / "a", store_config, commit_seconds=0) as writer:
        writer.add("s2", np.ones((3, 4)), **row)
        assert writer.done == {"s0", "s2"}


def test_large_rows_are_committed_by_size(
    tmp_path: Path, store_config: dict[str, Any], row: dict[str, Any], monkeypatch: Any
) -> None:
    monkeypatch.setattr(shard_writer, "COMMIT_BYTES", 2 * 3 * 4 * 2)  # two rows in float16
    with StoreWriter(tmp_path / "a", store_config) as writer:
        for number in range(5):
            writer.add(f"s{number}", np.ones((3, 4)), **row)
        assert writer.done == {"s0", "s1", "s2", "s3"}


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
def test_finished_rows_survive_an_exception(
    tmp_path: Path,
    store_config: dict[str, Any],
    row: dict[str, Any],
    problem: type[BaseException],
) -> None:
    writer = StoreWriter(tmp_path / "a", store_config)

    def work() -> None:
        with writer:
            writer.add("s", np.ones((3, 4)), **row)
            raise problem

    with pytest.raises(problem):
        work()
    assert FeatureStore.open(tmp_path / "a").ids().tolist() == ["s"]
    with pytest.raises(ValueError, match="the writer is closed"):
        writer.add("t", np.ones((3, 4)), **row)


def test_a_reader_sees_every_commit_while_the_writer_works(
    tmp_path: Path, store_config: dict[str, Any], row: dict[str, Any]
) -> None:
    with StoreWriter(tmp_path / "a", store_config, commit_rows=1) as writer:
        assert len(FeatureStore.open(tmp_path / "a")) == 0
        early = FeatureStore.open(tmp_path / "a")
        for number in range(3):
            writer.add(f"s{number}", np.full((3, 4), number), **row)
            assert FeatureStore.open(tmp_path / "a").read([f"s{number}"], 0)[0, 0] == number
        assert len(early) == 0


def test_a_store_reads_alike_in_threads_and_after_pickling(
    tmp_path: Path, make_store: Make
) -> None:
    features = make_store(tmp_path / "a", IDS)
    store = pickle.loads(pickle.dumps(FeatureStore.open(tmp_path / "a")))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: store.read(IDS, 2), range(40)):
            np.testing.assert_array_equal(found, features[:, 1])


def test_a_second_writer_is_told_who_holds_the_lock(
    tmp_path: Path, store_config: dict[str, Any]
) -> None:
    with StoreWriter(tmp_path / "a", store_config):
        told = rf'locked by {{"pid": {os.getpid()}, "host": ".+", "since": "20.+"}}, expected'
        with pytest.raises(InputError, match=told):
            StoreWriter(tmp_path / "a", store_config)
    StoreWriter(tmp_path / "a", store_config).close()


FORKING_WRITER = """
import json, os, sys, time
from spk.extract.store.writer import StoreWriter

writer = StoreWriter(sys.argv[1], json.loads(sys.argv[2]))
child = os.fork()
if child == 0:
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""


def test_a_worker_that_outlives_a_killed_writer_does_not_hold_the_lock(
    tmp_path: Path, store_config: dict[str, Any]
) -> None:
    command = [sys.executable, "-c", FORKING_WRITER, str(tmp_path / "a"), json.dumps(store_config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    child = int(process.stdout.readline())
    try:
        time.sleep(0.2)  # the child lets go as its first act
        with pytest.raises(InputError, match=f'locked by {{"pid": {process.pid},'):
            StoreWriter(tmp_path / "a", store_config)
        process.kill()
        process.wait()
        StoreWriter(tmp_path / "a", store_config).close()
        os.kill(child, 0)  # and it was alive all the time
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_leftovers_are_passed_over_and_cleaned(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    whole = next((tmp_path / "a" / "shards").iterdir())
    leftovers = [
        tmp_path / "a" / "shards" / f".writing-1-{whole.name}",
        tmp_path / "a" / ".writing-1-store.json",
    ]
    for leftover in leftovers:
        leftover.write_bytes(whole.read_bytes()[:100])
    assert len(FeatureStore.open(tmp_path / "a")) == 10
    make_store(tmp_path / "a", ["new"])
    assert not any(leftover.exists() for leftover in leftovers)
    assert len(FeatureStore.open(tmp_path / "a")) == 11


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_shard_is_refused_by_name_and_its_rows_can_be_made_again(
    tmp_path: Path, make_store: Make, keep: int
) -> None:
    make_store(tmp_path / "a", IDS)
    before = contents(tmp_path / "a")
    shards = sorted((tmp_path / "a" / "shards").iterdir())
    shards[-1].write_bytes(shards[-1].read_bytes()[:keep])
    told = f"{re.escape(shards[-1].name)}: .*delete the file and run spk-extract again"
    with pytest.raises(InputError, match=told):
        FeatureStore.open(tmp_path / "a")
    with pytest.raises(InputError, match=told):
        make_store(tmp_path / "a", ["new"])
    shards[-1].unlink()
    make_store(
        tmp_path / "a", [name for name in IDS if name not in before["rows"]["segment_id"][:8]]
    )
    assert contents(tmp_path / "a") == before


def test_a_flipped_byte_of_features_is_refused_where_it_is_read(
    tmp_path: Path, make_store: Make
) -> None:
    features = make_store(tmp_path / "a", IDS, commit_rows=10)
    path = next((tmp_path / "a" / "shards").iterdir())
    shard = read_shard(path)
    content = bytearray(path.read_bytes())
    content[shard.start + (1 * 10 + 6) * 4 * 2] ^= 1  # layer 2, row 6, dim 4, float16
    path.write_bytes(content)
    store = FeatureStore.open(tmp_path / "a")
    np.testing.assert_array_equal(store.read(IDS[:6], 2), features[:6, 1])
    np.testing.assert_array_equal(store.read(IDS, 5), features[:, 2])
    with pytest.raises(InputError, match="other bytes for 's6'"):
        store.read(["s6"], 2)


def test_a_full_disk_is_reported_in_bytes_and_loses_nothing(
    tmp_path: Path, store_config: dict[str, Any], row: dict[str, Any], monkeypatch: Any
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with StoreWriter(tmp_path / "a", store_config) as writer:
        writer.add("s", np.ones((3, 4)), **row)
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "fsync", full)
            with pytest.raises(InputError, match=r"bytes are free on the disk, expected \d+ bytes"):
                writer.commit()
        assert list((tmp_path / "a" / "shards").iterdir()) == []
        writer.commit()
    assert FeatureStore.open(tmp_path / "a").ids().tolist() == ["s"]


def test_a_shard_gets_its_name_after_its_bytes_and_before_its_folder_are_on_disk(
    tmp_path: Path, store_config: dict[str, Any], row: dict[str, Any], monkeypatch: Any
) -> None:
    steps: list[str] = []
    rename = Path.replace

    def sync(handle: int) -> None:
        steps.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)

    monkeypatch.setattr(files.os, "fsync", sync)
    monkeypatch.setattr(
        Path, "replace", lambda old, new: (steps.append(f"to {new.name}"), rename(old, new))
    )
    writer = StoreWriter(tmp_path / "a", store_config)
    writer.add("s", np.ones((3, 4)), **row)
    steps.clear()
    writer.close()
    name = next((tmp_path / "a" / "shards").iterdir()).name
    assert re.fullmatch(rf"\.writing-{os.getpid()}-[0-9a-f]{{32}}", steps[0])
    assert steps[1:] == [f"to {name}", "shards"]


def test_a_folder_that_is_not_a_store_is_left_alone(tmp_path: Path, make_store: Make) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"no store\.json beside \['notes\.txt'\]"):
        make_store(tmp_path, IDS)
    with pytest.raises(InputError, match="it is not an HDF5 file, expected a store"):
        make_store(tmp_path / "notes.txt", IDS)
    make_store(tmp_path / "a", IDS)
    (tmp_path / "a" / "store.json").unlink()
    with pytest.raises(InputError, match=r"no store\.json beside \['lock', 'shards'\]"):
        make_store(tmp_path / "a", ["new"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace('"mean"', '"std"'), "fingerprint is '.*', expected '"),
        (
            lambda text: text.replace('"schema": 1,\n "f', '"schema": 2,\n "f'),
            "schema is 2, expected 1",
        ),
        (lambda text: text[:50], "cannot be read"),
        (lambda text: "[]", "cannot be read"),
    ],
)
def test_a_changed_description_is_refused(
    tmp_path: Path, make_store: Make, change: Callable[[str], str], told: str
) -> None:
    make_store(tmp_path / "a", IDS)
    file = tmp_path / "a" / "store.json"
    file.write_text(change(file.read_text()))
    with pytest.raises(InputError, match=told):
        FeatureStore.open(tmp_path / "a")


def test_foreign_files_among_the_shards_are_refused(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    make_store(tmp_path / "b", ["other"], channel="mean")
    (tmp_path / "a" / "shards" / "copy.h5").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 name is not of shards, first 'copy\.h5'"):
        FeatureStore.open(tmp_path / "a")
    (tmp_path / "a" / "shards" / "copy.h5").unlink()
    shutil.copy(next((tmp_path / "b" / "shards").iterdir()), tmp_path / "a" / "shards")
    with pytest.raises(InputError, match="channel: 'mean', asked '0'"):
        FeatureStore.open(tmp_path / "a")


def test_a_shard_whose_fingerprint_is_not_its_configurations_is_refused(
    tmp_path: Path, make_store: Make, monkeypatch: Any
) -> None:
    make_store(tmp_path / "a", IDS)
    with monkeypatch.context() as patch:
        patch.setattr(shard_writer, "fingerprint", lambda config: "0" * 64)
        make_store(tmp_path / "a", ["forged"])
    with pytest.raises(InputError, match="fingerprint is '0{64}', expected '[0-9a-f]{64}'; delete"):
        FeatureStore.open(tmp_path / "a")


@pytest.mark.slow
def test_no_kill_loses_or_changes_an_acknowledged_row(
    tmp_path: Path, store_config: dict[str, Any]
) -> None:
    count, draws = 4000, random.Random(3)
    acknowledged: set[str] = set()
    for _ in range(KILLS):
        process = start_writer(tmp_path / "a", store_config, count)
        assert process.stdout
        process.stdout.readline()  # the lock of the writer killed before did not block this one
        lines = [process.stdout.readline() for _ in range(draws.randrange(4))]
        time.sleep(draws.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        lines += process.communicate()[0].splitlines(keepends=True)
        acknowledged |= {line.strip() for line in lines if line.endswith("\n")}
        store = FeatureStore.open(tmp_path / "a")
        assert acknowledged <= set(store.ids().tolist())
        for layer in store.layers:
            expected = [float(name[1:]) for name in store.ids()]
            np.testing.assert_array_equal(store.read(store.ids(), layer)[:, 0], expected)
    assert len(acknowledged) >= KILLS  # the writers did get somewhere
    final = len(store) + len(store.rejected()) + 20
    for path in (tmp_path / "a", tmp_path / "uninterrupted"):
        process = start_writer(path, store_config, final)
        process.communicate()
        assert process.returncode == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "uninterrupted")
