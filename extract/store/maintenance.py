"""Whole-store operations: info, verify, merge, and the list of rejected segments.

``STORE.rejected.csv`` lists the segments for which a store has no features, and why. Packing and
exporting are in `export`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...common.counts import agree, counted
from ...common.engine.running import PLACE as RUNNING
from ...common.engine.running import describe, read_running
from ...common.errors import InputError, explain_write_errors
from ...common.files import WRITING, replace_folder
from ...common.locks import FolderLock
from ...common.log import with_progress
from .layout import (
    SHARD_NAME,
    check_same_config,
    check_store_file,
    read_description,
    shard_paths,
    write_rejected,
)
from .reader import FeatureStore
from .shard import REPAIR, Shard, read_layer, read_shard
from .writer import StoreWriter

if TYPE_CHECKING:
    import pandas as pd


Written = TypeVar("Written")
BLOCK = 256  # segments held in memory at once, at all layers

ROUNDING = 1e-3  # relative to a vector's length; a step of float16 is 2**-10 of a number


def store_info(path: str | Path) -> dict[str, Any]:
    """Return a store's statistics and configuration.

    Returns
    -------
    dict
        `segments`, `hours`, `layers`, `dim`, `kind`, `bytes` (on disk), `shards`, `rejected`
        (code -> count), `configuration`, `fingerprint`, `versions`; `running`, the extraction that
        writes to it (`engine.running.Running`), or None. No lock is taken.
    """
    store = FeatureStore.open(path)
    running = read_running(Path(path))
    return {
        "segments": len(store),
        "hours": float(store.rows()["duration"].sum()) / 3600,
        "layers": store.layers,
        "dim": store.dim,
        "kind": store.kind,
        "bytes": sum(shard.path.stat().st_size for shard in store.shards),
        "shards": len(store.shards),
        "rejected": dict(Counter(row["code"] for row in store.rejected())),
        "configuration": store.config,
        "fingerprint": store.fingerprint,
        "versions": store.versions,
        "running": describe(running) if running else None,
    }


def merge_stores(
    paths: Sequence[str | Path], out: str | Path, *, overwrite: bool = False, lock: bool = True
) -> int:
    """Copy the rows of several stores of one configuration into the store folder `out`.

    A segment in several stores is copied once, from the first; their features may differ by up to
    `ROUNDING`, since another batch may round a float16 the other way. `out` may exist: an
    interrupted merge resumes. Segments that are rejected in some store and have features in none
    are listed in OUT.rejected.csv. With `overwrite`, a store at `out` is replaced once the new one
    is complete. Without `lock`, no other process may write to `out`.

    Returns
    -------
    int
        Segments in `out`.

    Raises
    ------
    InputError
        Configurations differ, or two stores have different features for a segment.
    """
    if overwrite and os.path.lexists(out):
        return begin_anew(Path(out), lambda new: merge_stores(paths, new, lock=lock), lock=lock)
    stores = [FeatureStore.open(path) for path in paths]
    there = [FeatureStore.open(out)] if (Path(out) / "store.json").exists() else []
    for store in [*there, *stores][1:]:
        first = [*there, *stores][0]
        check_same_config(store.config, first.config, str(store.path), "leave it out")
    _check_conflicts([*there, *stores])
    with StoreWriter(out, stores[0].config, versions=stores[0].versions, lock=lock) as writer:
        taken = set(writer.done)
        shards = [(shard, store.kind) for store in stores for shard in store.shards]
        for shard, kind in with_progress(shards, "shards"):
            _copy(shard, kind, writer, taken)
        for store in stores:
            for row in store.rejected():
                if row["segment_id"] not in taken and row["segment_id"] not in writer.rejections:
                    writer.reject(**row)
        writer.commit()
        rejections = list(writer.rejections.values())
    write_rejected(out, rejections)
    return len(taken)


def begin_anew(out: Path, write: Callable[[Path], Written], *, lock: bool = True) -> Written:
    """Let `write` make a store in a temporary folder beside `out`, then replace `out` with it.

    Raises
    ------
    InputError
        `out` is no store, or holds other files as well.
    """
    _check_only_a_store(out)
    with explain_write_errors(out):
        folder_lock = FolderLock(out / "lock", lock=lock)
        draft = Path(tempfile.mkdtemp(dir=out.absolute().parent, prefix=f".{out.name}."))
    try:
        written = write(draft / "store")
        replace_folder(draft / "store", out)
    finally:
        folder_lock.release()
        shutil.rmtree(draft, ignore_errors=True)
    write_rejected(out, FeatureStore.open(out).rejected())
    return written


def _check_only_a_store(path: Path) -> None:
    """Refuse a folder that is not a store, or that contains other files as well."""
    read_description(path)
    shard_paths(path)
    strange = sorted({file.name for file in path.iterdir()} - {"store.json", "shards", "lock"})
    strange = [name for name in strange if not name.startswith(WRITING) and name != RUNNING]
    if strange:
        raise InputError(
            f"{path}: holds {strange[0]!r}, which is not part of a store, expected none; move it "
            "away, or name another store"
        )


def _check_conflicts(stores: Sequence[FeatureStore]) -> None:
    first_seen: dict[str, tuple[bytes, FeatureStore]] = {}
    conflicts = []
    for store in stores:
        for shard in store.shards:
            for name, sums in zip(shard.columns["segment_id"].tolist(), shard.crc32, strict=True):
                before, first = first_seen.setdefault(name, (sums.tobytes(), store))
                if before != sums.tobytes() and (apart := _apart(name, first, store)) > ROUNDING:
                    conflicts.append(
                        f"{name!r} in {first.path} and {store.path}, {apart:.1e} apart"
                    )
    if conflicts:
        raise InputError(
            f"merge: {counted(len(conflicts), 'segment', 'has')} different features, first "
            f"{conflicts[0]}, expected at most {ROUNDING:.0e} (what other batches round to); "
            "leave out one of the stores"
        )


def _apart(name: str, first: FeatureStore, second: FeatureStore) -> float:
    """Return the largest relative distance, over layers, of a segment's features in two stores."""
    largest = 0.0
    for layer in first.layers:
        a, b = (_values(store, name, layer) for store in (first, second))
        if a.shape != b.shape:
            return float("inf")
        length = max(float(np.linalg.norm(a)), float(np.finfo(np.float32).tiny))
        largest = max(largest, float(np.linalg.norm(a - b)) / length)
    return largest


def _values(store: FeatureStore, name: str, layer: int) -> np.ndarray:
    frames = store.kind == "frames"
    return store.read_frames(name, layer) if frames else store.read([name], layer)


def _copy(shard: Shard, kind: str, writer: StoreWriter, taken: set[str]) -> None:
    names = shard.columns["segment_id"].tolist()
    new = np.array([place for place, name in enumerate(names) if name not in taken], dtype=np.int64)
    for segments in _blocks(new):
        layers = [read_layer(shard, place, segments) for place in range(shard.shape[0])]
        block = np.stack(layers, axis=1)  # (rows, layers, dim)
        sizes = np.diff(shard.offset)[segments]
        parts = np.split(block, np.cumsum(sizes)[:-1])
        for segment, part in zip(segments.tolist(), parts, strict=True):
            writer.add(
                names[segment],
                part if kind == "frames" else part[0],
                duration=float(shard.columns["duration"][segment]),
                frames=int(shard.columns["frames"][segment]),
                audio_bytes=int(shard.columns["audio_bytes"][segment]),
                audio_crc32=int(shard.columns["audio_crc32"][segment]),
                audio_digest=int(shard.columns["audio_digest"][segment]),
            )
            taken.add(names[segment])


def _blocks(segments: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(segments), BLOCK):
        yield segments[first : first + BLOCK]


def verify_store(
    path: str | Path, *, table: pd.DataFrame | None = None, audio: str | Path | None = None
) -> list[str]:
    """Read every byte of a store and return its faults, a line each.

    Checks the SHA-256 of each shard, its types and configuration, the CRC-32 of each segment at
    each layer, and that ids are unique; with `table` and `audio` also that store and table have the
    same segments (apart from rejected ones), and that the audio still decodes to the samples that
    the features were computed from.

    Parameters
    ----------
    table
        The segment table that the store was made from.
    audio
        Folder of the table's audio files.

    Raises
    ------
    InputError
        There is no store, or only one of `table` and `audio` is given.
    """
    path = Path(path)
    if (table is None) != (audio is None):
        raise InputError(
            f"{path}: one of --table and --audio-root is given, expected both or none; pass the "
            "other too"
        )
    single = path.is_file()
    if single:
        check_store_file(path)
    else:
        read_description(path)
    faults = [
        fault
        for shard in with_progress([path] if single else shard_paths(path), "shards")
        for fault in _shard_faults(shard, check_name=not single)
    ]
    if faults:
        return faults
    try:
        store = FeatureStore.open(path)  # detects foreign shards and duplicate ids
    except InputError as problem:
        return [str(problem)]
    if table is None or audio is None:
        return []
    return _audio_faults(store, table, Path(audio))


def _shard_faults(path: Path, *, check_name: bool) -> list[str]:
    match = SHARD_NAME.fullmatch(path.name)
    if check_name and match and match[3] != _sha256(path):
        return [f"{path}: the content does not match the SHA-256 in the name; {REPAIR}"]
    try:
        shard = read_shard(path)
    except InputError as problem:
        return [str(problem)]
    if check_name and match and match[2] != shard.attributes["fingerprint"][:8]:
        return [f"{path}: the name has another fingerprint than the content; {REPAIR}"]
    faults = []
    for position in range(shard.shape[0]):
        for segments in _blocks(np.arange(len(shard.crc32))):
            try:
                read_layer(shard, position, segments)
            except InputError as problem:
                faults.append(str(problem))
    return faults


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _audio_faults(store: FeatureStore, table: pd.DataFrame, root: Path) -> list[str]:
    from ..audio import ReadOptions, Rejected, read_segment, segments_of

    config = store.config
    if not {"rate", "channel"} <= set(config):
        raise InputError(
            f"{store.path}: holds imported vectors of {config['encoder']!r}, expected features "
            "that spk-extract made of audio; leave out --table and --audio-root"
        )
    # Samples are compared, so another rate is fine.
    read_options = ReadOptions(config["rate"], config["channel"], resample=True, shortest=1)
    rows = store.rows()
    sums = zip(rows["audio_bytes"].tolist(), rows["audio_crc32"].tolist(), strict=True)
    expected = dict(zip(rows["segment_id"].tolist(), sums, strict=True))
    here = table["segment_id"].isin(expected)
    there, rejected = table[here], [row["segment_id"] for row in store.rejected()]
    absent = table["segment_id"][~here & ~table["segment_id"].isin(rejected)]
    faults = []
    if len(absent):
        faults.append(
            f"{store.path}: {len(absent)} of the table's {counted(len(table), 'segment')} "
            f"{agree(len(absent), 'has', 'have')} no features, first {absent.iloc[0]!r}; run "
            "spk-extract on the same table"
        )
    if len(there) < len(expected):
        strange = counted(len(expected) - len(there), "segment", "is", of=len(expected))
        faults.append(
            f"{store.path}: {strange} not in the table; pass the table that it was made from"
        )
    pairs = zip(there["audio"], segments_of(there, root), strict=True)
    for audio, segment in with_progress(pairs, "segments", total=len(there)):
        where = f"{audio}: segment {segment.segment_id!r}"
        try:
            decoded = read_segment(segment, read_options)
        except Rejected as problem:
            faults.append(f"{where} {problem.code}: {problem.message}")
            continue
        if (decoded.nbytes, decoded.crc32) != expected[segment.segment_id]:
            faults.append(
                f"{where} has other samples than those encoded; bring the recording back, or "
                "extract it to another store"
            )
    return faults
