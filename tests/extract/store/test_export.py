"""One file holds what the store holds, or there is no file."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from spk.common.errors import InputError
from spk.extract.store import export as export_module
from spk.extract.store.export import export, pack
from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter
from spk.manifests.table import check_table

Make = Callable[..., np.ndarray]
IDS = [f"s{number}" for number in range(10)]


@pytest.fixture
def frames_store(tmp_path: Path, store_config: dict[str, Any], row: dict[str, Any]) -> Path:
    config = {**store_config, "kind": "frames", "dtype": "float32"}
    with StoreWriter(tmp_path / "frames", config, commit_rows=2) as writer:
        for count in (1, 7, 2):
            values = np.random.default_rng(count).normal(size=(count, 3, 4))
            writer.add(f"s{count}", values, **row)
    return tmp_path / "frames"


def test_a_packed_store_reads_like_the_folder(tmp_path: Path, make_store: Make) -> None:
    features = make_store(tmp_path / "a", IDS)
    with StoreWriter(tmp_path / "a", FeatureStore.open(tmp_path / "a").config) as writer:
        writer.reject("bad", "silent", "all samples are 0")
    size = pack(tmp_path / "a", tmp_path / "packed.h5")
    folder, packed = FeatureStore.open(tmp_path / "a"), FeatureStore.open(tmp_path / "packed.h5")
    assert size == (tmp_path / "packed.h5").stat().st_size
    assert packed.ids().tolist() == IDS
    assert (packed.config, packed.fingerprint) == (folder.config, folder.fingerprint)
    assert packed.rejected() == folder.rejected()
    for place, layer in enumerate(packed.layers):
        np.testing.assert_array_equal(packed.read(IDS[::-1], layer), features[::-1, place])
    with h5py.File(tmp_path / "packed.h5", "r") as file:
        np.testing.assert_array_equal(file["features"][()], features.swapaxes(0, 1))


def test_frames_are_packed_too(tmp_path: Path, frames_store: Path) -> None:
    pack(frames_store, tmp_path / "packed.h5")
    folder, packed = FeatureStore.open(frames_store), FeatureStore.open(tmp_path / "packed.h5")
    for name in folder.ids():
        np.testing.assert_array_equal(packed.read_frames(name, 2), folder.read_frames(name, 2))


def test_an_empty_store_is_packed_and_exported(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", [])
    pack(tmp_path / "a", tmp_path / "packed.h5")
    assert len(FeatureStore.open(tmp_path / "packed.h5")) == 0
    assert export(tmp_path / "packed.h5", tmp_path / "a.npz") == 0
    assert export(tmp_path / "packed.h5", tmp_path / "a.parquet") == 0
    assert np.load(tmp_path / "a.npz")["layer_2"].shape == (0, 4)
    assert len(pd.read_parquet(tmp_path / "a.parquet")) == 0


def test_npz_holds_every_layer_without_pickle(tmp_path: Path, make_store: Make) -> None:
    features = make_store(tmp_path / "a", IDS)
    assert export(tmp_path / "a", tmp_path / "a.npz") == 10
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["segment_id"].tolist() == IDS
        assert arrays["layer_5"].dtype == np.float16
        np.testing.assert_array_equal(arrays["layer_5"], features[:, 2])
        assert json.loads(str(arrays["configuration"]))["encoder"] == "tiny"
        assert arrays["frames"].tolist() == [74] * 10


def test_npz_holds_frames_with_their_offsets(tmp_path: Path, frames_store: Path) -> None:
    export(frames_store, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["offset"].tolist() == [0, 1, 8, 10]
        expected = FeatureStore.open(frames_store).read_frames("s7", 2)
        np.testing.assert_array_equal(arrays["layer_2"][1:8], expected)
    with pytest.raises(InputError, match=r"kind is 'frames', expected 'pooled' for \.parquet"):
        export(frames_store, tmp_path / "a.parquet")


def test_parquet_holds_every_layer(
    tmp_path: Path, make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "BLOCK", 3)  # several row groups
    features = make_store(tmp_path / "a", IDS)
    assert export(tmp_path / "a", tmp_path / "a.parquet") == 10
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert table["segment_id"].tolist() == IDS
    assert table["audio_crc32"].tolist() == [0xFFFFFFFF] * 10
    for place, layer in enumerate((0, 2, 5)):
        np.testing.assert_array_equal(np.stack(table[f"layer_{layer}"]), features[:, place])


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_a_table_adds_who_speaks_when_and_chooses_rows(
    tmp_path: Path, make_store: Make, suffix: str
) -> None:
    features = make_store(tmp_path / "a", IDS)  # three shards
    chosen = ["s9", "s0", "s5", "s4"]
    rows = {"segment_id": chosen, "audio": "a.wav", "speaker": list("ABAB"), "session": "S"}
    table = check_table(pd.DataFrame({**rows, "start": [9.0, 0, 5, 4], "end": [9.5, 1, 6, 5]}))
    assert export(tmp_path / "a", tmp_path / f"a{suffix}", table=table) == 4
    if suffix == ".npz":
        with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    else:
        frame = pd.read_parquet(tmp_path / "a.parquet")
        found = {name: np.stack(frame[name].tolist()) for name in frame}
    order = ["s0", "s4", "s5", "s9"]  # the store's
    assert found["segment_id"].tolist() == order
    assert "split" not in found
    for name in ("speaker", "session", "start", "end"):
        expected = table.set_index("segment_id").loc[order, name].tolist()
        assert found[name].tolist() == expected
    np.testing.assert_array_equal(found["layer_2"], features[[0, 4, 5, 9], 1])


def test_a_table_of_other_segments_is_refused(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    rows = {"segment_id": ["x"], "audio": "a.wav", "speaker": "A", "session": "S"}
    table = pd.DataFrame({**rows, "start": 0.0, "end": 1.0})
    with pytest.raises(InputError, match="0 of 1 segment of the table have features, first 'x'"):
        export(tmp_path / "a", tmp_path / "a.npz", table=table)


def test_a_name_that_is_taken_or_strange_is_refused(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    (tmp_path / "taken.npz").write_text("mine")
    for write in (pack, export):
        with pytest.raises(InputError, match=r"taken\.npz: exists with other content"):
            write(tmp_path / "a", tmp_path / "taken.npz")
    with pytest.raises(InputError, match=r"suffix is '\.csv', expected \.npz or \.parquet"):
        export(tmp_path / "a", tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.h5", "a.npz", "a.parquet"])
def test_a_fault_in_the_store_leaves_no_file(tmp_path: Path, make_store: Make, name: str) -> None:
    make_store(tmp_path / "a", IDS)
    shard = max((tmp_path / "a" / "shards").iterdir())
    start = FeatureStore.open(tmp_path / "a").shards[-1].start
    content = bytearray(shard.read_bytes())
    content[start] ^= 1
    shard.write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="other bytes for 's8'"):
        (pack if name == "a.h5" else export)(tmp_path / "a", tmp_path / "out" / name)
    assert list((tmp_path / "out").iterdir()) == []


def test_too_little_room_is_reported_before_writing(
    tmp_path: Path, make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "a", IDS)
    monkeypatch.setattr(
        "spk.common.files.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})
    )
    with pytest.raises(InputError, match=r"10 bytes are free on the disk, expected \d{5} bytes"):
        pack(tmp_path / "a", tmp_path / "packed.h5")
    assert not (tmp_path / "packed.h5").exists()


def test_a_killed_pack_leaves_no_file_under_the_name(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS, dim=100_000, commit_rows=10)
    code = "import sys; from spk.extract.store.export import pack; print(1, flush=True); "
    code += "pack(*sys.argv[1:])"
    for delay in (0, 0.01, 0.02, 0.03):
        out = tmp_path / f"{delay}.h5"
        command = [sys.executable, "-c", code, str(tmp_path / "a"), str(out)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not out.exists() or len(FeatureStore.open(out)) == 10


@pytest.mark.parametrize("packed", [False, True])
def test_a_store_opened_by_a_relative_path_is_read_from_any_folder(
    tmp_path: Path, make_store: Make, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    features = make_store(tmp_path / "store", IDS)
    pack(tmp_path / "store", tmp_path / "store.h5")
    name = "store.h5" if packed else "store"
    monkeypatch.chdir(tmp_path)
    opened = FeatureStore.open(name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(opened.read(IDS, opened.layers[1]), features[:, 1])
    assert str(opened.path) == name
