"""A shard is what was written, or it is refused before any value comes out of it."""

import binascii
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from spk.common.errors import InputError
from spk.extract.store import shard as shard_module
from spk.extract.store.shard import TRAILER, checksums, read_layer, read_shard, shard_parts, trailer

IDS = ["S1_001-M_0000.0000_0001.5000", "讲者"]
FEATURES = np.arange(2 * 5 * 3, dtype="<f2").reshape(2, 5, 3)  # 2 layers, 5 rows, dim 3
OFFSET = np.array([0, 2, 5])  # two frames and three


def write(path: Path) -> Path:
    columns = {
        "segment_id": IDS,
        "duration": [1.5, 2.0],
        "frames": [2, 3],
        "audio_bytes": [96000, 128000],
        "audio_crc32": [7, 0xFFFFFFFF],
        "audio_digest": [1 << 63, 9],
    }
    rejected = [{"segment_id": "x", "code": "silent", "message": "all samples are 0"}]
    attributes = {"fingerprint": "ab", "configuration": {"dim": 3}, "versions": {"spk": "0"}}
    sums = np.array([checksums(FEATURES[:, :2]), checksums(FEATURES[:, 2:])])
    parts = shard_parts(FEATURES, OFFSET, columns, rejected, attributes, sums)
    path.write_bytes(b"".join(parts))
    return path


def seal(path: Path, shift: int = 0) -> None:
    """Give any HDF5 file the last bytes that prove it whole, as a forger would."""
    with h5py.File(path, "r") as file:
        features = file.get("features")
        start, size = 0, 0
        if isinstance(features, h5py.Dataset) and not features.chunks:
            start, size = features.id.get_offset() or 0, features.id.get_storage_size()
    start += shift
    content = path.read_bytes()
    rest = hashlib.sha256(content[:start] + content[start + size :])
    path.write_bytes(content + trailer(start, size, rest))


def everything(path: Path) -> tuple[object, ...]:
    """Return all that can be read of a shard, as plain values."""
    shard = read_shard(path)
    layers = [read_layer(shard, place, np.arange(2)).tolist() for place in range(2)]
    columns = {name: values.tolist() for name, values in shard.columns.items()}
    return layers, columns, shard.rejected, shard.attributes, shard.offset.tolist()


def test_a_plain_hdf5_reader_sees_what_was_written(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "a.h5"), "r") as file:
        np.testing.assert_array_equal(file["features"][()], FEATURES)
        assert file["features"].dtype == np.float16
        assert file["features"].chunks is None
        assert [raw.decode() for raw in file["segment_id"][()]] == IDS
        assert file["crc32"][1, 0] == binascii.crc32(FEATURES[0, 2:5].tobytes())
        assert file["audio_crc32"][()].tolist() == [7, 0xFFFFFFFF]
        assert file["audio_digest"][()].tolist() == [1 << 63, 9]
        assert json.loads(file.attrs["configuration"]) == {"dim": 3}


def test_a_shard_gives_back_what_went_in(tmp_path: Path) -> None:
    shard = read_shard(write(tmp_path / "a.h5"))
    assert shard.columns["segment_id"].tolist() == IDS
    assert shard.columns["duration"].tolist() == [1.5, 2.0]
    assert shard.rejected == [{"segment_id": "x", "code": "silent", "message": "all samples are 0"}]
    swapped = read_layer(shard, 1, np.array([1, 0]))
    assert swapped.dtype == np.float16
    np.testing.assert_array_equal(swapped, FEATURES[1][[2, 3, 4, 0, 1]])


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    before = write(tmp_path / "a.h5").read_bytes()
    time.sleep(1.1)  # HDF5 keeps whole seconds where it keeps times
    assert write(tmp_path / "b.h5").read_bytes() == before


@pytest.mark.slow
def test_no_flipped_byte_comes_back_as_a_value(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    content = path.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"a\.h5: the file holds"):
            everything(path)


@pytest.mark.slow
def test_no_torn_file_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    content = path.read_bytes()
    for length in range(0, len(content), 3):
        zeros = bytes(len(content) - length)  # a power cut may leave the length without the bytes
        for torn in (content[:length], content[:length] + zeros):
            path.write_bytes(torn)
            with pytest.raises(InputError, match="as written; "):
                everything(path)


def test_hdf5_never_opens_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.h5")
    content = bytearray(path.read_bytes())
    content[8] ^= 255
    path.write_bytes(content)
    monkeypatch.setattr(shard_module.h5py, "File", lambda *_, **__: pytest.fail("HDF5 opened it"))
    with pytest.raises(InputError, match="does not match its SHA-256"):
        read_shard(path)


def replace(name: str, **kwargs: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        if "link" in kwargs:
            file[name] = kwargs["link"]
        else:
            file.create_dataset(name, **kwargs)

    return change


def virtual(file: h5py.File) -> None:
    del file["crc32"]
    layout = h5py.VirtualLayout(shape=(2, 2), dtype="<u4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "crc32", shape=(2, 2))
    file.create_virtual_dataset("crc32", layout)


def external(file: h5py.File) -> None:
    replace("frames", shape=(2,), dtype="<i8", external=[("/etc/passwd", 0, 16)])(file)


def references(file: h5py.File) -> None:
    replace("frames", data=np.array([file.ref] * 2, h5py.ref_dtype), dtype=h5py.ref_dtype)(file)


HOSTILE = {
    "external link": replace("frames", link=h5py.ExternalLink("other.h5", "frames")),
    "soft link": replace("frames", link=h5py.SoftLink("/audio_bytes")),
    "external storage": external,
    "virtual": virtual,
    "references": references,
    "variable length": replace("segment_id", data=["a", "b"], dtype=h5py.string_dtype()),
    "chunked": replace("frames", data=np.arange(2), chunks=(1,)),
    "never written": replace("frames", shape=(1 << 40,), dtype="<i8"),
    "group": lambda file: (file.__delitem__("frames"), file.create_group("frames")),
    "more": lambda file: file.create_dataset("extra", data=1),
    "less": lambda file: file.__delitem__("crc32"),
    "text attribute": lambda file: file.attrs.__setitem__("fingerprint", '"ab"'),
    "shape": replace("duration", data=np.zeros(3)),
    "offset": replace("offset", data=np.array([0, 6, 5])),
    "ids that are no text": replace("segment_id", data=np.array([b"a", b"\xff"])),
    "reasons that are no rows": replace("rejected", data=np.frombuffer(b"[1]", "u1")),
    "a reason without a code": replace(
        "rejected", data=np.frombuffer(b'[{"segment_id": 1}]', "u1")
    ),
    "features missing": replace("features", data=np.zeros((0, 5, 3), "<f2")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_our_writer_never_makes_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.h5")
    write(tmp_path / "other.h5")  # what an external link finds when it is followed
    path.write_bytes(path.read_bytes()[: -TRAILER.size])
    with h5py.File(path, "r+") as file:
        HOSTILE[name](file)
    seal(path)
    with pytest.raises(InputError, match=r"a\.h5: the file holds"):
        everything(path)


def test_a_sealed_copy_is_read(tmp_path: Path) -> None:
    """The forger's seal is a good one: the test above refuses for what is in the file."""
    path = write(tmp_path / "a.h5")
    before = everything(path)
    path.write_bytes(path.read_bytes()[: -TRAILER.size])
    with h5py.File(path, "r+") as file:
        replace("duration", data=np.array([1.5, 2.0]))(file)
    seal(path)
    assert everything(path) == before


def test_a_shard_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[: -TRAILER.size])
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = np.bytes_(b"2")
    seal(path)
    with pytest.raises(InputError, match=r"a\.h5: schema is 2, expected 1; use the spk version"):
        read_shard(path)


def test_features_stand_where_the_last_bytes_say(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[: -TRAILER.size])
    seal(path, shift=-2)
    with pytest.raises(InputError, match="features not where its trailer says"):
        read_shard(path)


def test_any_other_hdf5_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.zeros(3)
    with pytest.raises(InputError, match="bytes without the mark of a complete file"):
        read_shard(tmp_path / "a.h5")
