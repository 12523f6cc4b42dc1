"""The layout of a store folder: its description, shard names and configuration.

``STORE/store.json`` holds the schema, the configuration, its SHA-256 (the fingerprint) and the
library versions that created it. ``STORE/shards/SEQUENCE-FINGERPRINT8-SHA256.h5`` are the commits
(`shard`), in order. ``STORE/lock`` belongs to the single writer. Names that begin with
``.writing-`` are incomplete: readers ignore them, the next writer removes them, and so it does with
``STORE/.running``, which tells of the extraction under way (`engine.running`). A packed store is a
single shard file with all rows; it is read like a folder and is read-only.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ...common.counts import counted
from ...common.engine.running import forget
from ...common.errors import InputError, explain_write_errors
from ...common.files import atomic_open, atomic_write, remove_temporary_files, sync_folder
from ...common.locks import FolderLock
from .shard import DTYPES, SCHEMA, require_object

SHARD_NAME = re.compile(r"(\d{6,})-([0-9a-f]{8})-([0-9a-f]{64})\.h5")
KINDS = ("pooled", "frames")
HDF5 = b"\x89HDF\r\n\x1a\n"  # an HDF5 file's first bytes
# Recorded for information only: what was assumed about the encoder's input, and (in older stores)
# whether recordings of another rate were allowed.
RECORDED = ("assumed", "resample")
NAMES = ("encoder", "revision")  # names of what the next two identify
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # a commit's, or SHA-256
HASH_DIGITS = 12  # of a hash in a message
HASHES = ("weights_sha256", "encoder_config_sha256")
OPTIONS = {  # key of a configuration -> the option that sets it
    "channel": "--channel",
    "compute_dtype": "--dtype",
    "dtype": "--store-dtype",
    "kind": "--frames",
    "layers": "--layers",
    "max_seconds": "--max-seconds",
    "normalization": "--normalize",
    "pooling": "--pooling",
}


def normalize_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the configuration as it reads back from JSON, or raise `InputError`."""
    try:
        plain = json.loads(json.dumps(dict(config), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as problem:
        raise InputError(f"{where}: configuration is not JSON ({problem}); correct it") from None
    layers, dim = plain.get("layers"), plain.get("dim")
    whole = isinstance(layers, list) and all(type(layer) is int for layer in layers)
    if not whole or not layers or layers != sorted({*layers}):
        raise InputError(f"{where}: layers are {layers!r}, expected ascending numbers; correct it")
    if type(dim) is not int or dim < 1:
        raise InputError(f"{where}: dim is {dim!r}, expected a whole number above 0; correct it")
    for key, choices in (("kind", KINDS), ("dtype", tuple(DTYPES))):
        if plain.get(key) not in choices:
            raise InputError(
                f"{where}: {key} is {plain.get(key)!r}, expected one of {choices}; correct it"
            )
    return plain


def fingerprint(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a configuration, whatever the order of its keys."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differing_keys(
    old: Mapping[str, Any], new: Mapping[str, Any], *, free: Collection[str] = ()
) -> list[str]:
    """Return the keys in which two configurations yield different features; empty: compatible.

    An encoder's name and revision are ignored if both configurations have the hashes of its weights
    and settings, which identify it; so are keys that are only recorded, and those in `free`.
    """
    passed = {*RECORDED, *free}
    if all(key in config for config in (old, new) for key in HASHES):
        passed |= {*NAMES}
    absent = object()
    keys = sorted({*old, *new} - passed)
    return [key for key in keys if old.get(key, absent) != new.get(key, absent)]


def setting_text(value: object) -> str:
    """Return a configuration's value for a message, of a hash the digits that tell it apart.

    >>> setting_text("5e" * 32), setting_text("mean")
    ("'5e5e5e5e5e5e'", "'mean'")
    """
    is_hash = isinstance(value, str) and HASH.fullmatch(value)
    return repr(str(value)[:HASH_DIGITS] if is_hash else value)


def check_same_config(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    where: str,
    repair: str = "name another store",
) -> None:
    """Raise `InputError`, listing the keys that differ, if two configurations are incompatible."""
    keys = differing_keys(old, new)
    pairs = [(key, old.get(key, "nothing"), new.get(key, "nothing")) for key in keys]
    differ = [
        f"{key}: {setting_text(before)}, asked {setting_text(now)}" for key, before, now in pairs
    ]
    if differ:
        raise InputError(
            f"{where}: made with another configuration ({'; '.join(differ)}), expected the same; "
            f"{repair}"
        )


def _repair(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return the repair for another configuration: which options to change, if that is enough."""
    keys = set(differing_keys(old, new)) - {"dim"}  # follows from the others
    if not keys or not keys <= set(OPTIONS):
        return "name another store"
    options = ", ".join(OPTIONS[key] for key in sorted(keys))
    return f"give {options} the store's value, or name another store"


def check_store_file(path: Path) -> None:
    """Raise `InputError` if a file given as a store is not one, such as a table or recording."""
    try:
        with path.open("rb") as file:
            head = file.read(len(HDF5))
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror}); make it readable") from None
    if head != HDF5:
        raise InputError(
            f"{path}: it is not an HDF5 file, expected a store: a folder written by spk-extract, "
            "or a file that spk-store pack made from it; name that"
        )


def read_description(path: Path) -> dict[str, Any]:
    """Read and check ``store.json`` of a store folder."""
    file = path / "store.json"
    try:
        described = json.loads(file.read_bytes())
        recorded, schema = described["fingerprint"], described["schema"]
        expected = fingerprint(require_object(described, "configuration"))
        require_object(described, "versions")
    except FileNotFoundError:
        raise InputError(
            f"{path}: no store.json there, expected a store; make it with spk-extract"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as problem:
        raise InputError(
            f"{file}: cannot be read ({problem!r}), expected a store's description; "
            "bring it back from a copy"
        ) from problem
    if schema != SCHEMA:
        raise InputError(
            f"{file}: schema is {schema!r}, expected {SCHEMA}; use the spk version that wrote it"
        )
    if recorded != expected:
        raise InputError(
            f"{file}: fingerprint is {recorded!r}, expected {expected!r}, the "
            "configuration's; bring the file back from a copy"
        )
    return described


def shard_paths(path: Path) -> list[Path]:
    """Return a store folder's shards in commit order; raise `InputError` for foreign names."""
    folder = path / "shards"
    try:
        names = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
    except OSError as problem:
        raise InputError(
            f"{folder}: cannot be read ({problem.strerror}), expected the store's shards; "
            "bring them back from a copy"
        ) from None
    strange = sorted(name for name in names if not SHARD_NAME.fullmatch(name))
    if strange:
        raise InputError(
            f"{folder}: {counted(len(strange), 'name', 'is')} not of shards, first "
            f"{strange[0]!r}, expected SEQUENCE-FINGERPRINT-SHA256.h5; move them elsewhere"
        )
    return [folder / name for name in sorted(names, key=lambda name: (shard_number(name), name))]


def shard_number(name: str) -> int:
    """Return a shard's sequence number, from its name."""
    return int(name.split("-", maxsplit=1)[0])


def open_for_writing(
    path: Path, config: Mapping[str, Any], versions: Mapping[str, Any], *, lock: bool = True
) -> FolderLock:
    """Create or check a store folder for its single writer, and return the acquired lock.

    Without `lock` none is acquired, and no other process may write there.

    Raises
    ------
    InputError
        Another process is writing, the folder is not a store or has another configuration, or it
        cannot be written to.
    """
    if path.is_file():
        check_store_file(path)
        raise InputError(
            f"{path}: it is a packed store, which is only read, expected a folder; run `spk-store "
            f"merge {path} FOLDER` and name that folder"
        )
    _check_store_or_empty(path)
    with explain_write_errors(path):
        (path / "shards").mkdir(parents=True, exist_ok=True)
        folder_lock = FolderLock(path / "lock", lock=lock)
    try:
        with explain_write_errors(path):
            remove_temporary_files(path)
            remove_temporary_files(path / "shards")
        forget(path)
        if (path / "store.json").exists():
            ours = read_description(path)["configuration"]
            check_same_config(ours, config, str(path), _repair(ours, config))
        else:
            _describe(path, config, versions)
    except BaseException:
        folder_lock.release()
        raise
    return folder_lock


def _check_store_or_empty(path: Path) -> None:
    if not path.exists() or (path / "store.json").exists():
        return
    ours = (
        "lock",
        "shards",
    )  # a writer may have died, or still be at work, before store.json exists
    names = {file.name for file in path.iterdir() if not file.name.startswith(".")}
    shards = (path / "shards").is_dir() and shard_paths(path)
    if shards or names.difference(ours):
        raise InputError(
            f"{path}: no store.json beside {sorted(names)}, expected a store or an empty folder; "
            "name another folder"
        )


def _describe(path: Path, config: Mapping[str, Any], versions: Mapping[str, Any]) -> None:
    described = {
        "schema": SCHEMA,
        "fingerprint": fingerprint(config),
        "configuration": config,
        "versions": versions,
    }
    content = json.dumps(described, indent=1, ensure_ascii=False).encode() + b"\n"
    with atomic_open(path / "store.json", len(content)) as file:
        file.write(content)
    with explain_write_errors(path):
        sync_folder(path.parent)


def rejected_path(store: str | Path) -> str:
    """Return the path, beside the store, of the CSV that lists its rejected segments."""
    return f"{str(store).rstrip('/')}.rejected.csv"


def write_rejected(store: str | Path, rows: Collection[Mapping[str, str]]) -> None:
    """Write STORE.rejected.csv (`segment_id`, `code`, `message`), or remove it without `rows`.

    In the order of `segment_id`, whatever was rejected first on which device or machine.
    """
    path = Path(rejected_path(store))
    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    sheet = csv.DictWriter(text, ("segment_id", "code", "message"), lineterminator="\n")
    sheet.writeheader()
    sheet.writerows(sorted(rows, key=lambda row: row["segment_id"]))
    atomic_write(path, text.getvalue().encode())
