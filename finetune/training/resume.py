"""Choose the checkpoint to resume a task from: its own last one, or one given by the user.

It must be of the same rows and settings, and the best epoch so far must be beside it; otherwise the
resumed run would differ from an uninterrupted one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...common.errors import InputError
from ...common.files import atomic_write
from ..config import FinetuneConfig
from ..model.checkpoint import read_checkpoint, settings_of
from ..model.module import ModelIdentity
from .provenance import differing_settings, result_settings
from .session_result import checkpoint_path


def checkpoint_to_resume(
    folder: Path, subject: ModelIdentity, config: FinetuneConfig
) -> Path | None:
    """Return the checkpoint to resume from, the later of the two candidates; None to start anew.

    Raises
    ------
    InputError
        It is of other rows or settings, or lacks what resuming needs.
    """
    own = checkpoint_path(folder, subject.task, "last", config)
    candidates = [own] if own.is_file() and config.resume_from_checkpoint is not False else []
    if isinstance(config.resume_from_checkpoint, str):
        requested = Path(config.resume_from_checkpoint)
        if read_checkpoint(requested)["spk"]["task"] == subject.task:
            candidates.append(requested)
    if not candidates:
        return None
    chosen = max(candidates, key=lambda path: int(read_checkpoint(path)["epoch"]))
    _check_same_run(chosen, read_checkpoint(chosen), subject, config)
    if chosen != own:
        _bring_best(chosen, checkpoint_path(folder, subject.task, "best", config))
    return chosen


def _check_same_run(
    path: Path, checkpoint: dict[str, Any], subject: ModelIdentity, config: FinetuneConfig
) -> None:
    if "optimizer_states" not in checkpoint:
        last = path.with_name(path.name.replace("-best.ckpt", "-last.ckpt"))
        repair = f"name {last}"
        if last == path or not last.is_file():
            repair = "there is none beside it: leave out --resume-from-checkpoint to start over"
        raise InputError(
            f"{path}: holds no state of the optimiser, expected a checkpoint ending in -last.ckpt; "
            f"{repair}"
        )
    description = checkpoint["spk"]
    names = differing_settings(result_settings(settings_of(path, description["settings"])), config)
    names += ["the table's rows"] * (description["rows"] != subject.rows)
    if names:
        raise InputError(
            f"{path}: was made with other values of {names}, expected those of this run; give them "
            "as they were, or leave out --resume-from-checkpoint and start over in another "
            "--log-dir"
        )


def _bring_best(chosen: Path, target: Path) -> None:
    """Copy the best checkpoint so far from beside the chosen one."""
    source = chosen.with_name(chosen.name.replace("-last.ckpt", "-best.ckpt"))
    if not source.is_file() or source == chosen:
        raise InputError(
            f"{chosen}: the best epoch so far, {source.name}, is missing, expected it beside; copy "
            "both, or leave out --resume-from-checkpoint to start over"
        )
    atomic_write(target, source.read_bytes())
