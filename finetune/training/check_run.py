"""Check, before training, that an existing folder is of the same table, encoder and settings.

A folder of another run is never extended, and its results are never shown as this table's: it is
refused, naming the differences. Anything that version 0.1.0 did not record, or that is unavailable,
is reported as not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...common.counts import agree, counted
from ...common.errors import InputError, explain_write_errors
from ...manifests.splits.tasks import rows_sha256
from ..config import FinetuneConfig, anew, read_config, read_values, write_config
from .provenance import (
    ANOTHER,
    Origin,
    differing_recordings,
    differing_rows,
    differing_settings,
    fingerprint,
    identity,
    load_encoder,
    read_origin,
    result_settings,
)
from .session_result import SessionResult, checkpoint_path, read_result, wants_more
from .sessions import TrainingPlan, unfinished_tasks

OWN = ("config.yaml", "sessions.csv", "predictions.csv", "rejected.csv")
FEWEST = 60  # settings in a config file written by fit


def write_or_check_config(
    plan: TrainingPlan, log: Callable[[str], None] = lambda line: None
) -> TrainingPlan:
    """Refuse a folder of another table, encoder or settings, or else write the settings to it.

    Settings may still change until an epoch is finished there.

    Returns
    -------
    TrainingPlan
        The same plan, with its encoder filled in.

    Raises
    ------
    InputError
        The folder is of another run, or cannot be written to; or the encoder is needed but
        unavailable.
    """
    root = Path(plan.config.log_dir)
    path, folders = root / "config.yaml", _versions(root)
    _check_own(root, folders)
    begun = path.is_file() and any(map(_begun, folders.values()))
    old = read_config(path) if begun else None
    if old:
        check_settings(path, result_settings(old), plan.config)
    plan = replace(plan, encoder=_encoder(plan, log))
    for version, folder in folders.items():
        check_folder(plan, version, folder, old, log)
    with explain_write_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    write_config(plan.config, path)
    return plan


def _check_own(root: Path, folders: Mapping[int, Path]) -> None:
    """Refuse a folder with files that fit would overwrite but did not write."""
    there = [name for name in OWN if (root / name).exists()]
    if there and not folders and not _has_all_settings(root / "config.yaml"):
        raise InputError(
            f"{root}: holds {there[0]!r} of another program, expected nothing or a run of "
            "spk-finetune; name another --log-dir"
        )


def _has_all_settings(path: Path) -> bool:
    """Return whether a config file has all settings, as those written by fit do."""
    try:
        return len(read_values(path)) >= FEWEST
    except InputError:
        return False


def _encoder(plan: TrainingPlan, log: Callable[[str], None]) -> dict[str, str]:
    try:
        parts = load_encoder(plan.config)
    except InputError as problem:
        if unfinished_tasks(plan):
            raise
        log(f"encoder: was not compared with that of the finished sessions ({problem})")
        return {}
    for note in parts.notes:
        log(note)
    return identity(parts.provenance)


def _versions(root: Path) -> dict[int, Path]:
    """Return the sessions' folders, by number."""
    folders = {path.name.removeprefix("version_"): path for path in root.glob("version_*")}
    numbers = sorted((int(name), path) for name, path in folders.items() if name.isdecimal())
    return dict(numbers)


def _begun(folder: Path) -> bool:
    """Return whether a session's folder has at least one epoch, or a result."""
    return any((folder / name).is_file() for name in ("metrics.csv", "result.json"))


def check_settings(where: Path, old: Mapping[str, Any], config: FinetuneConfig) -> None:
    """Raise `InputError` if settings that affect results have changed."""
    names = differing_settings(old, config)
    if names:
        raise InputError(
            f"{where}: settings {names} differ from those given, expected the same within "
            "a run; give them as there, or name another --log-dir"
        )


def check_folder(
    plan: TrainingPlan,
    version: int,
    folder: Path,
    old: FinetuneConfig | None,
    log: Callable[[str], None],
) -> None:
    """Raise `InputError` if a session's folder is not of the plan's table or encoder.

    Parameters
    ----------
    old
        The settings recorded in the log folder, for sessions that did not record their own.
    """
    origin = read_origin(folder)
    if origin is None:
        if (folder / "result.json").is_file():
            raise InputError(
                f"{folder}: holds a result without task.json, which says what it is of, expected "
                "both; "
                f"{anew(folder)}, or name another --log-dir"
            )
        return
    _check_session(plan, version, folder, origin)
    result = read_result(folder)
    _check_rows(plan, folder, origin, ordered=result is None)
    if not _begun(folder):
        return
    if origin.settings is not None:
        check_settings(folder / "task.json", origin.settings, plan.config)
    _check_made_from(plan, folder, origin, result, log)
    settings = origin.settings or (result_settings(old) if old else None)
    if result and wants_more(result, replace(origin, settings=settings), plan.config):
        _check_last(plan, folder, result)


def _check_session(plan: TrainingPlan, version: int, folder: Path, origin: Origin) -> None:
    name = plan.names[version] if version < len(plan.names) else None
    if origin.session != name:
        there = (
            f"session {version} is {name!r}" if name else counted(len(plan.names), "session", "is")
        )
        raise InputError(
            f"{folder}: is of session {origin.session!r}, expected one of this table, whose "
            f"{there}; give the table as it was, or name another --log-dir"
        )
    if name not in plan.doable:
        raise InputError(
            f"{folder}: {name!r} was trained there, expected rows that can be trained, but the "
            f"table's cannot ({plan.left_out[name]}); {ANOTHER}"
        )


def _check_rows(plan: TrainingPlan, folder: Path, origin: Origin, *, ordered: bool) -> None:
    """Refuse other rows; for a finished session their order does not matter."""
    task = plan.doable[origin.session]
    if origin.rows_sha256 == rows_sha256(task, plan.table):
        return
    difference = differing_rows(folder, task, plan.table, ordered=ordered)
    if difference:
        raise InputError(f"{folder}: {difference}, expected the same rows; {ANOTHER}")


def _check_made_from(
    plan: TrainingPlan,
    folder: Path,
    origin: Origin,
    result: SessionResult | None,
    log: Callable[[str], None],
) -> None:
    """Refuse another encoder, other recordings, or a result that does not match task.json."""
    if result and result.made_from and result.made_from != fingerprint(origin):
        raise InputError(
            f"{folder}: result.json does not match task.json, expected both of one training; "
            f"{anew(folder)}"
        )
    encoder = origin.encoder or _noted_encoder(folder, origin.session, result, plan.config)
    for name, own in plan.encoder.items():
        if encoder.get(name, own) != own:
            raise InputError(
                f"{folder}: was trained on an encoder whose {name} is {encoder[name]!r}, and that "
                f"of {plan.config.encoder!r} is {own!r}, expected the same; name the earlier "
                "encoder with --encoder, or another --log-dir"
            )
    changed, absent = differing_recordings(origin, plan.config)
    if changed:
        raise InputError(
            f"{folder}: {counted(len(changed), 'recording', 'has')} other content than when it "
            f"was trained, first {changed[0]!r}, expected the same; {ANOTHER}"
        )
    if origin.recordings is None:
        log(f"{folder}: was begun by version 0.1.0, whose recordings cannot be compared")
    elif absent:
        log(
            f"{folder}: {counted(len(absent), 'recording', 'is')} not below "
            f"{plan.config.audio_root} and {agree(len(absent), 'was', 'were')} not compared, "
            f"first {absent[0]!r}"
        )


def _noted_encoder(
    folder: Path, session: str, result: SessionResult | None, config: FinetuneConfig
) -> dict[str, str]:
    """Return the encoder recorded in a checkpoint of version 0.1.0, if there is one."""
    path = checkpoint_path(folder, session, "best", config)
    if result and result.checkpoint:
        path = folder.parent / result.checkpoint
    if not path.is_file():
        return {}
    from ..model.checkpoint import read_description

    return {name: str(value) for name, value in read_description(path)["encoder"].items()}


def _check_last(plan: TrainingPlan, folder: Path, result: SessionResult) -> None:
    path = checkpoint_path(folder, result.session, "last", plan.config)
    if not path.is_file():
        raise InputError(
            f"{folder}: has {counted(result.epochs, 'epoch')} and no {path.name}, which more "
            f"training needs, expected it; delete {folder} to train all "
            f"{counted(plan.config.max_epochs, 'epoch')}, or name another --log-dir"
        )
