"""A task's provenance: its rows, their recordings, the encoder and the settings.

It is written to a session's folder as ``task.json``, with the rows in ``rows.csv``, before training
starts, so that a later run can tell whether the folder is of its table, and if not, what differs. A
recording is unchanged if it was not touched (size, times, inode) or has the same SHA-256. Version
0.1.0 recorded only the session and a fingerprint of the rows.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ...common.names import normal_name
from ...manifests.splits.tasks import Task, rows_sha256
from ..config import FinetuneConfig, by_names_of_today

if TYPE_CHECKING:
    import pandas as pd

    from ...extract.encoder.loading import LoadedEncoder


ENCODER = ("weights_sha256", "encoder_config_sha256", "normalization")
ROW_COLUMNS = ("audio", "start", "end", "speaker", "session", "split", "channel")
SAME_TIME = 1e-6  # s: a CSV file's digits
ANOTHER = "give the table and its recordings as they were, or name another --log-dir"
TASK, ROWS = "task.json", "rows.csv"


@dataclass(frozen=True)
class Origin:
    """What a task is made from; fields that version 0.1.0 did not record are None.

    Attributes
    ----------
    encoder : {name: value}
        The `ENCODER` entries of the encoder's provenance.
    settings : {name: value}
        Settings that may affect results.
    recordings : {audio: {"sha256", "stamp"}}
        The recordings that existed, by their names in the table. The stamp is size (bytes),
        modification times (ns) and inode.
    """

    session: str
    rows_sha256: str
    encoder: Mapping[str, str] | None = None
    settings: Mapping[str, Any] | None = None
    recordings: Mapping[str, Mapping[str, Any]] | None = None


def describe(
    task: Task, table: pd.DataFrame, config: FinetuneConfig, encoder: Mapping[str, Any]
) -> Origin:
    """Return a task's provenance; reads its recordings once."""
    paths = {
        name: Path(config.audio_root) / name for name in sorted({*_rows(task, table)["audio"]})
    }
    return Origin(
        task.name,
        rows_sha256(task, table),
        identity(encoder),
        result_settings(config),
        {name: mark(path) for name, path in paths.items() if path.is_file()},
    )


def identity(encoder: Mapping[str, Any]) -> dict[str, str]:
    """Return the part of an encoder's provenance that identifies it, wherever it is stored."""
    return {name: str(encoder[name]) for name in ENCODER if name in encoder}


def result_settings(config: FinetuneConfig) -> dict[str, Any]:
    """Return the settings that may affect results, including devices if they share a model.

    The encoder is given by its last path component only, which appears in the model's name; its
    hashes identify it.
    """
    names = [setting.name for setting in fields(FinetuneConfig) if setting.metadata["result"]]
    names += ["devices"] * (config.within == "corpus")
    values = {name: getattr(config, name) for name in names if name != "revision"}
    return {**values, "encoder": Path(config.encoder).name}


def mark(path: Path) -> dict[str, Any]:
    """Return a file's SHA-256, and its stamp, which is constant until the file is touched."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "stamp": stamp(path)}


def stamp(path: Path) -> list[int]:
    """Return numbers that change whenever a file is written, replaced or moved."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def write_origin(folder: Path, origin: Origin, task: Task, table: pd.DataFrame) -> None:
    """Write a session's provenance: task.json first, which marks the folder as a session's.

    A run that is killed between the two files goes on: the rows are written again.
    """
    atomic_write(folder / TASK, json.dumps(asdict(origin)).encode())
    rows = _rows(task, table).to_csv(index=False, lineterminator="\n")
    atomic_write(folder / ROWS, rows.encode())


def read_origin(folder: Path) -> Origin | None:
    """Read a session's provenance; None if there is none.

    Raises
    ------
    InputError
        The file is damaged.
    """
    path = folder / TASK
    if not path.is_file():
        return None
    try:
        return Origin(**json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as problem:
        raise InputError(
            f"{path}: cannot be read ({problem}), expected a note of spk-finetune; delete {folder} "
            "to train that session again, or name another --log-dir"
        ) from None


def fingerprint(origin: Origin) -> str:
    """Return one SHA-256 of everything that a result depends on."""
    recordings = {
        name: recording["sha256"] for name, recording in (origin.recordings or {}).items()
    }
    content = [origin.session, origin.rows_sha256, origin.encoder, origin.settings, recordings]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def differing_settings(old: Mapping[str, Any], config: FinetuneConfig) -> list[str]:
    """Return the names of the `result_settings` that have changed.

    More epochs than before are not a difference, since training can continue.
    """
    new = result_settings(config)
    # A setting added in a later version had its default value before.
    before = {**result_settings(FinetuneConfig(within=config.within)), **by_names_of_today(old)}
    names = [name for name in new if before[name] != new[name]]
    return [name for name in names if name != "max_epochs" or new[name] < before[name]]


def differing_rows(folder: Path, task: Task, table: pd.DataFrame, *, ordered: bool) -> str:
    """Describe how a table's rows differ from those recorded in a folder.

    "" if only the order differs, and it does not matter (`ordered` is false).
    """
    path = folder / ROWS
    if not path.is_file():
        return "was trained on other rows than the table's (which ones it does not say)"
    old, new = _read_rows(path), _rows(task, table).set_index("segment_id")
    text = f"was trained on {counted(len(old), 'row')}, "
    for kind, names in _row_differences(old, new):
        if names:
            return f"{text}{len(names)} of which {kind} in this table, first {names[0]!r}"
    added = [name for name in new.index if name not in old.index]
    if added:
        return f"{text}the table has {len(added)} more, first {added[0]!r}"
    return f"{text}which the table has in another order" if ordered else ""


def _row_differences(old: pd.DataFrame, new: pd.DataFrame) -> Iterator[tuple[str, list[str]]]:
    yield "are not", [name for name in old.index if name not in new.index]
    both = [name for name in old.index if name in new.index]
    old, new = old.loc[both], new.loc[both]
    for column in ROW_COLUMNS:
        if column in ("start", "end"):
            wrong = (old[column] - new[column]).abs() > SAME_TIME
        else:
            wrong = _texts(old, column) != _texts(new, column)
        kind = "another audio file" if column == "audio" else f"another {column}"
        yield f"have {kind}", [*old.index[wrong.to_numpy()]]


def _texts(rows: pd.DataFrame, column: str) -> pd.Series:
    if column not in rows:
        return rows["audio"].map(lambda _: "")
    return rows[column].map(str)


def _rows(task: Task, table: pd.DataFrame) -> pd.DataFrame:
    """Return a task's rows, as recorded in its folder."""
    numbers = [number for part in task.rows.values() for number in part]
    columns = [name for name in ("segment_id", *ROW_COLUMNS) if name in table]
    return table.iloc[numbers][columns]


def _read_rows(path: Path) -> pd.DataFrame:
    from ...manifests.table import read_table

    return read_table(path).set_index("segment_id")


def differing_recordings(origin: Origin, config: FinetuneConfig) -> tuple[list[str], list[str]]:
    """Return which of a folder's recordings have changed, and which are missing."""
    changed, absent = [], []
    for name, recorded in (origin.recordings or {}).items():
        path = Path(config.audio_root) / name
        if not path.is_file():
            absent.append(name)
        elif stamp(path) != recorded["stamp"] and mark(path)["sha256"] != recorded["sha256"]:
            changed.append(name)
    return changed, absent


def training_audio(rows: pd.DataFrame, recordings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a model's training audio, per recording: name, hash and time spans (s, ascending).

    Parameters
    ----------
    rows
        The training segments.
    recordings
        As in `Origin`.
    """
    return [
        {
            "audio": str(audio),
            "session": str(session),
            "sha256": recordings.get(audio, {}).get("sha256", ""),
            "size": recordings.get(audio, {}).get("stamp", [-1])[0],
            "spans": _united(part[["start", "end"]].to_numpy().tolist()),
        }
        for (session, audio), part in rows.groupby(["session", "audio"], sort=True)
    ]


def _united(spans: list[list[float]]) -> list[list[float]]:
    """Merge overlapping time spans; return them in ascending order."""
    united: list[list[float]] = []
    for start, end in sorted(spans):
        if united and start <= united[-1][1]:
            united[-1][1] = max(united[-1][1], end)
        else:
            united.append([start, end])
    return united


def sharing_audio(
    rows: pd.DataFrame, learnt: Sequence[Mapping[str, Any]], audio_root: str
) -> list[str]:
    """Return the ids of segments that share audio with a model's training audio.

    Two recordings are the same if session and file name agree (whatever the folder and suffix), or
    if their bytes do.

    Parameters
    ----------
    learnt
        From `training_audio`.
    """
    shared = []
    for (session, audio), part in rows.groupby(["session", "audio"], sort=False):
        path = Path(audio_root) / str(audio)
        spans = [
            span
            for recording in learnt
            if _same_name(recording, str(session), str(audio)) or _same_bytes(recording, path)
            for span in recording["spans"]
        ]
        segments = part[["segment_id", "start", "end"]].to_numpy().tolist()
        shared += [name for name, start, end in segments if _touches(spans, start, end)]
    return shared


def _same_name(recording: Mapping[str, Any], session: str, audio: str) -> bool:
    stems = [normal_name(Path(name).stem) for name in (recording["audio"], audio)]
    return stems[0] == stems[1] and normal_name(recording["session"]) == normal_name(session)


def _same_bytes(recording: Mapping[str, Any], path: Path) -> bool:
    if not path.is_file() or os.path.getsize(path) != recording["size"]:
        return False
    return bool(mark(path)["sha256"] == recording["sha256"])


def _touches(spans: Sequence[Sequence[float]], start: float, end: float) -> bool:
    return any(low < end and start < high for low, high in spans)


def load_encoder(config: FinetuneConfig) -> LoadedEncoder:
    """Load a run's encoder."""
    from ...extract.encoder.loading import load_encoder_parts

    return load_encoder_parts(config.encoder, revision=config.revision, normalize=config.normalize)
