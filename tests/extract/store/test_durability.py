"""What cannot be written or read is one line, and leaves nothing half-written."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spk.common import files
from spk.common.errors import InputError
from spk.common.files import atomic_open
from spk.common.locks import FolderLock
from spk.extract.store import layout
from spk.extract.store.maintenance import verify_store
from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter

Make = Callable[..., np.ndarray]


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EROFS, errno.EIO])
def test_a_file_that_cannot_be_written_is_reported_and_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(handle: int) -> None:
        raise OSError(number, "refused by the disk")

    monkeypatch.setattr(files.os, "fsync", refused)
    told = r"cannot be written \(refused by the disk\)"
    with pytest.raises(InputError, match=told), atomic_open(tmp_path / "a", 1) as file:
        file.write(b"a")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_locked_is_reported(
    tmp_path: Path, make_store: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "a", ["s"])

    def refused(path: Path, *, lock: bool) -> FolderLock:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(layout, "FolderLock", refused)
    with pytest.raises(InputError, match=r"a: cannot be written \(Read-only file system\)"):
        make_store(tmp_path / "a", ["t"])
    assert len(FeatureStore.open(tmp_path / "a")) == 1


def test_a_place_below_a_file_is_reported(tmp_path: Path, store_config: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        StoreWriter(tmp_path / "file" / "store", store_config)


def test_a_store_without_its_shards_is_reported(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", ["s"])
    shard = next((tmp_path / "a" / "shards").iterdir())
    shard.unlink()
    shard.mkdir()
    with pytest.raises(InputError, match=r"\.h5: cannot be read \(Is a directory\)"):
        FeatureStore.open(tmp_path / "a")
    shard.rmdir()
    shard.parent.rmdir()
    for read in (FeatureStore.open, verify_store):
        with pytest.raises(InputError, match="shards: cannot be read .*bring them back"):
            read(tmp_path / "a")
