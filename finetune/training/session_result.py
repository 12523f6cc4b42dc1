"""Paths of a session's files, and its result: ``result.json`` and a line for the user."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ...common.names import normal_name
from ..config import FinetuneConfig, anew
from .provenance import Origin

LONGEST_STEM = 100  # bytes; with what is appended, a file name has at most 255
PREFIX = "prefix"  # folder of the frozen layers' cached output
RAY_TRAIN = ".ray"  # folder of Ray Train, while it runs several processes on one model


def safe_filename(name: str) -> str:
    """Turn a session's name into a safe part of a file name.

    A name that is changed or shortened gets a hash, so that no two names share a file.

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
    """Return a session's checkpoint folder: below its own folder, or below an absolute path."""
    base = Path(config.checkpoint_dir)
    return base / folder.name if base.is_absolute() else folder / base


def checkpoint_path(folder: Path, session: str, kind: str, config: FinetuneConfig) -> Path:
    """Return the path of a session's checkpoint; `kind` is "best" or "last"."""
    place = checkpoint_folder(folder, config)
    return place / f"{stem_in(place, session)}-{kind}.ckpt"


def stem_in(place: Path, session: str) -> str:
    """Return the file stem of a session's checkpoints, allowing for a folder begun by 0.1.0."""
    before = _plain(session)
    begun = any((place / f"{before}-{kind}.ckpt").is_file() for kind in ("best", "last"))
    return before if begun else safe_filename(session)


@dataclass(frozen=True)
class SessionResult:
    """A session's result; `state` is done, skipped or failed; accuracies are 0..1, per segment."""

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
    test_unknown: int = 0  # test segments of speakers without training segments
    test_learnt: int = 0  # test segments that share audio with training segments
    made_from: str = ""  # fingerprint of rows, recordings, encoder, settings (`provenance`)
    rejected: dict[str, str] = field(default_factory=dict)  # segment id -> why


def write_result(folder: Path, result: SessionResult) -> None:
    """Write a result, which marks its task as finished."""
    atomic_write(folder / "result.json", json.dumps(asdict(result), indent=1).encode())


def read_result(folder: Path) -> SessionResult | None:
    """Read the result of a finished task; None if it is not finished.

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
    """Return whether a finished session keeps its last checkpoint, to add epochs later."""
    return config.keep_last and result.state == "done" and result.epochs >= config.max_epochs


def result_line(result: SessionResult, folder: Path, max_epochs: int | None = None) -> str:
    """Return the line for the user on a session; `max_epochs` is its limit of epochs, if known.

    The line says if training ended at that limit, since more epochs may then improve the result.
    """
    text = f"{result.session}: {result.state}"
    if result.state == "done":
        text += (
            f", {counted(result.epochs, 'epoch')} in {result.seconds:.0f} s, "
            f"best {result.best_epoch} (from 0){_at_its_cap(result, max_epochs)}, "
            f"validation {result.valid_accuracy:.1%} of {result.valid_segments}, "
            f"test {result.test_accuracy:.1%} of {counted(result.test_segments, 'segment')}"
        )
        text += doubts(result.test_segments, result.test_unknown, result.test_learnt)
    if result.reason:
        text += f" ({result.reason})"
    if result.rejected:
        text += f", {counted(len(result.rejected), 'segment')} rejected"
    return f"{text}, {folder.name}"


def _at_its_cap(result: SessionResult, max_epochs: int | None) -> str:
    if max_epochs is None or result.epochs < max_epochs:
        return ""
    return f", ended by --max-epochs {max_epochs} and not by its patience"


def doubts(segments: int, unknown: int, learnt: int) -> str:
    """Return the caveats of a score on test segments, or ""."""
    text = ""
    if unknown:
        text += (
            f"; {counted(unknown, 'test segment', 'has', of=segments)} speakers without training "
            "segments"
        )
    if learnt:
        text += (
            f"; {counted(learnt, 'test segment', 'shares', of=segments)} audio with training "
            "segments"
        )
    return text


def wants_more(result: SessionResult, origin: Origin | None, config: FinetuneConfig) -> bool:
    """Return whether a session ran to a smaller max_epochs than now, without stopping early."""
    before = (origin.settings or {}).get("max_epochs") if origin else None
    if before is None or result.state != "done":
        return False
    return bool(result.epochs >= before and before < config.max_epochs)
