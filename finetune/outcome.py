"""Where a task's files lie, and what became of it: ``result.json`` in its folder, and one line."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..common.errors import InputError
from ..common.files import write_whole
from .config import Config

PREFIX = "prefix"  # folder of what the frozen layers give


def stem_of(name: str) -> str:
    """Return a session's name as part of a file's: nothing that leads to another folder.

    >>> stem_of("../a b"), stem_of("20200706_L_R001S01C01")
    ('.._a_b', '20200706_L_R001S01C01')
    """
    return re.sub(r"[^\w.-]", "_", name)


def checkpoint_folder(folder: Path, config: Config) -> Path:
    """Return where a session's checkpoints lie: below its folder, or in an absolute one's part."""
    given = Path(config.checkpoint_dir)
    return given / folder.name if given.is_absolute() else folder / given


def checkpoint_path(folder: Path, session: str, kind: str, config: Config) -> Path:
    """Return the path of a session's checkpoint; `kind` is best or last."""
    return checkpoint_folder(folder, config) / f"{stem_of(session)}-{kind}.ckpt"


@dataclass(frozen=True)
class Result:
    """One session's end; `state` is done, skipped or failed. Accuracies are over segments, 0..1."""

    session: str
    state: str
    reason: str = ""
    speakers: int = 0
    epochs: int = 0
    best_epoch: int | None = None  # from 0
    seconds: float = 0.0  # wall time of training
    valid_segments: int = 0
    valid_accuracy: float | None = None
    test_segments: int = 0
    test_accuracy: float | None = None
    checkpoint: str = ""
    rejected: dict[str, str] = field(default_factory=dict)  # segment id -> why


def write_result(folder: Path, result: Result) -> None:
    """Write a result, the sign that its task is finished."""
    write_whole(folder / "result.json", json.dumps(asdict(result), indent=1).encode())


def read_result(folder: Path) -> Result | None:
    """Return the result of a finished task, None where it is not finished.

    Raises
    ------
    InputError
        The file is damaged.
    """
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        return Result(**json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as problem:
        raise InputError(
            f"{path}: cannot be read ({problem}), expected a result of spk-finetune; delete "
            f"{folder} to train that session again"
        ) from None


def result_line(result: Result, folder: Path) -> str:
    """Return what is told when a session is finished."""
    told = f"{result.session}: {result.state}"
    if result.state == "done":
        told += (
            f", {result.epochs} epochs in {result.seconds:.0f} s, "
            f"best {result.best_epoch} (from 0), "
            f"validation {result.valid_accuracy:.1%} of {result.valid_segments}, "
            f"test {result.test_accuracy:.1%} of {result.test_segments} segments"
        )
    if result.reason:
        told += f" ({result.reason})"
    if result.rejected:
        told += f", {len(result.rejected)} segments rejected"
    return f"{told}, {folder.name}"
