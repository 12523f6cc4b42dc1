"""Where a task's files lie, and what became of it: ``result.json`` in its folder, and one line."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...common.errors import InputError
from ...common.files import atomic_write
from ...common.names import normal_name
from ..config import FinetuneConfig, anew
from .provenance import Origin

LONGEST_STEM = 100  # bytes: a file's name, with what is added, has at most 255
PREFIX = "prefix"  # folder of what the frozen layers give


def safe_filename(name: str) -> str:
    """Return a session's name as part of a file's: nothing that leads to another folder.

    A name that is changed for that, or too long, gets a hash: no two names share a file.

    >>> safe_filename("20200706_L_R001S01C01"), safe_filename("../a b"), safe_filename("../a_b")
    ('20200706_L_R001S01C01', '.._a_b-2c2c791a', '.._a_b-27dcc500')
    """
    name = normal_name(name)
    stem = _plain(name)
    if stem == name and len(stem.encode()) <= LONGEST_STEM:
        return stem
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{stem.encode()[:LONGEST_STEM].decode(errors='ignore')}-{digest}"


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


def checkpoint_folder(folder: Path, config: FinetuneConfig) -> Path:
    """Return where a session's checkpoints lie: below its folder, or in an absolute one's part."""
    given = Path(config.checkpoint_dir)
    return given / folder.name if given.is_absolute() else folder / given


def checkpoint_path(folder: Path, session: str, kind: str, config: FinetuneConfig) -> Path:
    """Return the path of a session's checkpoint; `kind` is best or last."""
    place = checkpoint_folder(folder, config)
    return place / f"{stem_in(place, session)}-{kind}.ckpt"


def stem_in(place: Path, session: str) -> str:
    """Return the stem of a session's checkpoints in a folder, where 0.1.0 may have begun it."""
    before = _plain(session)
    begun = any((place / f"{before}-{kind}.ckpt").is_file() for kind in ("best", "last"))
    return before if begun else safe_filename(session)


@dataclass(frozen=True)
class SessionResult:
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
    test_unknown: int = 0  # test segments of speakers that training has not
    test_learnt: int = 0  # test segments that share audio with training ones
    made_from: str = ""  # fingerprint of rows, recordings, encoder, settings (`provenance`)
    rejected: dict[str, str] = field(default_factory=dict)  # segment id -> why


def write_result(folder: Path, result: SessionResult) -> None:
    """Write a result, the sign that its task is finished."""
    atomic_write(folder / "result.json", json.dumps(asdict(result), indent=1).encode())


def read_result(folder: Path) -> SessionResult | None:
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
        return SessionResult(**json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as problem:
        raise InputError(
            f"{path}: cannot be read ({problem}), expected a result of spk-finetune; {anew(folder)}"
        ) from None


def keeps_last(result: SessionResult, config: FinetuneConfig) -> bool:
    """Tell whether more epochs may go on from a finished session's last checkpoint."""
    return config.keep_last and result.state == "done" and result.epochs >= config.max_epochs


def result_line(result: SessionResult, folder: Path, max_epochs: int | None = None) -> str:
    """Return what is told when a session is finished, of at most `max_epochs` where that is known.

    Where validation was still rising as it ended, more epochs may give more.
    """
    told = f"{result.session}: {result.state}"
    if result.state == "done":
        told += (
            f", {result.epochs} epochs in {result.seconds:.0f} s, "
            f"best {result.best_epoch} (from 0){_at_its_cap(result, max_epochs)}, "
            f"validation {result.valid_accuracy:.1%} of {result.valid_segments}, "
            f"test {result.test_accuracy:.1%} of {result.test_segments} segments"
        )
        told += doubts(result.test_segments, result.test_unknown, result.test_learnt)
    if result.reason:
        told += f" ({result.reason})"
    if result.rejected:
        told += f", {len(result.rejected)} segments rejected"
    return f"{told}, {folder.name}"


def _at_its_cap(result: SessionResult, max_epochs: int | None) -> str:
    if max_epochs is None or result.epochs < max_epochs:
        return ""
    return f", ended by --max-epochs {max_epochs} and not by its patience"


def doubts(segments: int, unknown: int, learnt: int) -> str:
    """Return what makes a score on test segments mean less than it seems, or ""."""
    told = ""
    if unknown:
        told += f"; {unknown} of {segments} test segments have speakers that training has not"
    if learnt:
        told += f"; {learnt} of {segments} test segments share audio with training segments"
    return told


def wants_more(result: SessionResult, origin: Origin | None, config: FinetuneConfig) -> bool:
    """Tell whether a session ended at fewer epochs than are wanted now, not by its patience."""
    before = (origin.settings or {}).get("max_epochs") if origin else None
    if before is None or result.state != "done":
        return False
    return bool(result.epochs >= before and before < config.max_epochs)
