"""Stores are described as they are, every fault is found, and merging changes no value."""

import math
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.common.errors import InputError
from spk.extract.store.export import pack
from spk.extract.store.maintenance import merge_stores, store_info, verify_store
from spk.extract.store.reader import FeatureStore
from spk.extract.store.shard import read_shard
from spk.extract.store.writer import StoreWriter

Make = Callable[..., np.ndarray]
IDS = [f"s{number}" for number in range(10)]


def shards(path: Path) -> list[Path]:
    return sorted((path / "shards").iterdir())


def reject(path: Path, config: dict[str, Any], *ids: str) -> None:
    with StoreWriter(path, config) as writer:
        for name in ids:
            writer.reject(name, "silent", f"all samples of {name} are 0")


def test_info_counts_what_is_there(
    tmp_path: Path, make_store: Make, store_config: dict[str, Any]
) -> None:
    make_store(tmp_path / "a", IDS)
    reject(tmp_path / "a", store_config, "x", "y")
    found = store_info(tmp_path / "a")
    assert found["segments"] == 10
    assert math.isclose(found["hours"], 10 * 1.5 / 3600)
    assert found["layers"] == [0, 2, 5]
    assert found["rejected"] == {"silent": 2}
    assert found["shards"] == 4
    assert found["bytes"] == sum(path.stat().st_size for path in shards(tmp_path / "a"))
    assert found["configuration"] == store_config


def test_a_whole_store_has_no_faults(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    pack(tmp_path / "a", tmp_path / "packed.h5")
    assert verify_store(tmp_path / "a") == []
    assert verify_store(tmp_path / "packed.h5") == []


def test_verify_finds_a_flipped_byte_of_any_shard(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    path = shards(tmp_path / "a")[1]
    content = path.read_bytes()
    for place in range(0, len(content), 61):
        changed = bytearray(content)
        changed[place] ^= 4
        path.write_bytes(changed)
        faults = verify_store(tmp_path / "a")
        assert len(faults) == 1
        assert faults[0].startswith(str(path))


def test_verify_finds_a_flipped_byte_of_a_packed_file(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    pack(tmp_path / "a", tmp_path / "packed.h5")
    content = bytearray((tmp_path / "packed.h5").read_bytes())
    start = read_shard(tmp_path / "packed.h5").start
    for place, count in ((start, 1), (start + 3, 1), (20, 1), (len(content) - 60, 1)):
        changed = content.copy()
        changed[place] ^= 4
        (tmp_path / "packed.h5").write_bytes(changed)
        assert len(verify_store(tmp_path / "packed.h5")) == count


def test_verify_finds_a_renamed_shard_a_double_and_a_foreign_one(
    tmp_path: Path, make_store: Make
) -> None:
    make_store(tmp_path / "a", IDS)
    make_store(tmp_path / "b", [*IDS[:2], "new"])
    make_store(tmp_path / "c", ["other"], channel="mean")
    double = shutil.copy(shards(tmp_path / "b")[0], tmp_path / "a" / "shards")
    assert "2 segments have features twice" in verify_store(tmp_path / "a")[0]
    Path(double).unlink()
    foreign = shutil.copy(shards(tmp_path / "c")[0], tmp_path / "a" / "shards")
    assert "channel: 'mean', asked '0'" in verify_store(tmp_path / "a")[0]
    Path(foreign).unlink()
    first, second, *_ = shards(tmp_path / "a")
    first.rename(second.with_name(second.name.replace("000001", "000009")))
    assert "does not match the SHA-256 in the name" in verify_store(tmp_path / "a")[0]


def make_audio(root: Path, name: str, samples: np.ndarray) -> None:
    soundfile.write(root / name, samples, 16000, subtype="PCM_16")


def test_verify_finds_audio_that_changed_under_its_name(
    tmp_path: Path, store_config: dict[str, Any]
) -> None:
    draws = np.random.default_rng(2)
    samples = draws.integers(-9999, 9999, (3, 16000), dtype=np.int16)
    times = [(0.1, 0.6), (0.25, 0.9), (0.0, 1.0)]
    rows = []
    with StoreWriter(tmp_path / "store", store_config) as writer:
        for number, (start, end) in enumerate(times):
            make_audio(tmp_path, f"{number}.wav", samples[number])
            cut = samples[number][int(start * 16000) : int(end * 16000)] / np.float32(32768)
            identity = {"audio_bytes": cut.nbytes, "audio_crc32": zlib.crc32(cut.tobytes())}
            writer.add(f"s{number}", np.ones((3, 4)), duration=end - start, frames=1, **identity)
            rows.append((f"s{number}", f"{number}.wav", start, end, "A", "M"))
    columns = ["segment_id", "audio", "start", "end", "speaker", "session"]
    table = pd.DataFrame(rows, columns=columns)
    assert verify_store(tmp_path / "store", table=table, audio=tmp_path) == []
    samples[1, 7000] += 1  # inside the second segment
    samples[2, 0] += 1  # the third segment holds everything
    make_audio(tmp_path, "1.wav", samples[1])
    (tmp_path / "2.wav").unlink()
    faults = verify_store(tmp_path / "store", table=table, audio=tmp_path)
    assert len(faults) == 2
    assert "1.wav: segment 's1' has other samples" in faults[0]
    assert "2.wav: segment 's2' unreadable" in faults[1]
    fewer = verify_store(tmp_path / "store", table=table[:1], audio=tmp_path)
    assert "2 of 3 segments are not in the table" in fewer[0]


def test_verify_tells_rows_of_the_table_that_have_no_features(
    tmp_path: Path, store_config: dict[str, Any]
) -> None:
    samples = np.random.default_rng(3).integers(-9999, 9999, 16000, dtype=np.int16)
    make_audio(tmp_path, "a.wav", samples)
    whole = samples / np.float32(32768)
    identity = {"audio_bytes": whole.nbytes, "audio_crc32": zlib.crc32(whole.tobytes())}
    with StoreWriter(tmp_path / "store", store_config) as writer:
        writer.add("s0", np.ones((3, 4)), duration=1.0, frames=1, **identity)
        writer.reject("s1", "silent", "nothing but zeros")
    rows = [(f"s{number}", "a.wav", 0.0, 1.0, "A", "M") for number in range(4)]
    columns = ["segment_id", "audio", "start", "end", "speaker", "session"]
    table = pd.DataFrame(rows, columns=columns)
    assert verify_store(tmp_path / "store", table=table[:2], audio=tmp_path) == []  # s1 is rejected
    (fault,) = verify_store(tmp_path / "store", table=table, audio=tmp_path)
    assert "2 of the table's 4 segments have no features, first 's2'; run spk-extract" in fault


def test_verify_wants_table_and_audio_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected both or none"):
        verify_store(tmp_path, audio=tmp_path)


def test_merge_keeps_every_value_and_the_order(
    tmp_path: Path, make_store: Make, store_config: dict[str, Any]
) -> None:
    features = make_store(tmp_path / "whole", IDS)
    make_store(tmp_path / "a", IDS[:6])
    make_store(tmp_path / "b", IDS[4:])
    reject(tmp_path / "a", store_config, "s9", "bad")
    pack(tmp_path / "b", tmp_path / "b.h5")
    assert merge_stores([tmp_path / "a", tmp_path / "b.h5"], tmp_path / "out") == 10
    store = FeatureStore.open(tmp_path / "out")
    assert store.ids().tolist() == IDS
    for place, layer in enumerate(store.layers):
        np.testing.assert_array_equal(store.read(IDS, layer), features[:, place])
    whole = FeatureStore.open(tmp_path / "whole").rows()
    for name, values in store.rows().items():
        np.testing.assert_array_equal(values, whole[name])
    assert [row["segment_id"] for row in store.rejected()] == ["bad"]
    assert verify_store(tmp_path / "out") == []


def test_merge_resumes_where_it_stopped(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    make_store(tmp_path / "out", IDS[3:5])
    assert merge_stores([tmp_path / "a"], tmp_path / "out") == 10
    assert merge_stores([tmp_path / "a"], tmp_path / "out") == 10
    assert FeatureStore.open(tmp_path / "out").ids().tolist() == [*IDS[3:5], *IDS[:3], *IDS[5:]]


def test_merge_keeps_frames(
    tmp_path: Path, store_config: dict[str, Any], row: dict[str, Any]
) -> None:
    features = {f"s{n}": np.random.default_rng(n).normal(size=(n, 3, 4)) for n in (1, 7, 2)}
    for name, values in features.items():
        config = {**store_config, "kind": "frames", "dtype": "float32"}
        with StoreWriter(tmp_path / name, config) as writer:
            writer.add(name, values, **row)
    merge_stores([tmp_path / name for name in features], tmp_path / "out")
    store = FeatureStore.open(tmp_path / "out")
    for name, values in features.items():
        np.testing.assert_array_equal(store.read_frames(name, 5), values[:, 2].astype(np.float32))


def test_merge_refuses_conflicts_and_writes_nothing(
    tmp_path: Path, make_store: Make, store_config: dict[str, Any], row: dict[str, Any]
) -> None:
    make_store(tmp_path / "a", IDS)
    with StoreWriter(tmp_path / "b", store_config) as writer:
        writer.add("s3", np.zeros((3, 4)), **row)
    with pytest.raises(InputError, match="1 segment has different features, first 's3' in"):
        merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merge_refuses_another_configuration(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    make_store(tmp_path / "b", ["new"], revision="9876fed")
    with pytest.raises(InputError, match="b: .*revision: '9876fed', asked '0123abc'"):
        merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merge_takes_the_rounding_of_another_batch_for_the_same(
    tmp_path: Path, make_store: Make, store_config: dict[str, Any], row: dict[str, Any]
) -> None:
    features = make_store(tmp_path / "a", IDS[:2])
    with StoreWriter(tmp_path / "b", store_config) as writer:
        for name, values in zip(IDS, features, strict=False):
            writer.add(name, np.nextafter(values.astype(np.float16), np.float16(9)), **row)
    assert merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "out") == 2
    np.testing.assert_array_equal(
        FeatureStore.open(tmp_path / "out").read(IDS[:2], 2), features[:, 1]
    )
