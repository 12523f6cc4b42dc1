"""Rename cut files to the names in a CSV (the thesis project's rename_segments_to_match_csv).

Files and rows are named ``{session}_{speaker}_{number}.wav``. The files may have been numbered
differently from the CSV: among the selected segments instead of by annotation line, from 1, per
speaker, without leading zeros. What stays the same is the order of a speaker's segments. So, per
session:

- *By name*: if, for each speaker, the files are a subset of the listed names or vice versa, every
  file keeps its name; rows without a file are missing, files without a row are extra.
- *By order* otherwise: a speaker with as many files as rows, whose file numbers are consecutive
  (within the speaker or the session) or share no number with the rows, is matched in order.
- Any other speaker is *ambiguous*: none of their files is touched.

Files are renamed through hidden names in two phases, with the plan on disk (``match.*.json``), so
that chains and cycles work, no file is ever overwritten, and the next run completes a killed one.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ...common.locks import folder_lock
from ...common.names import normal_name
from ..text_files.delimited import check_columns, read_delimited

AUDIO_SUFFIXES = (".wav", ".flac")
NUMBERED = re.compile(r"((.+)_[^_]+)_(\d{1,18})(\.[^.]+)")  # stem, session, number, suffix
ASIDE, PLACE = "match.aside.json", "match.place.json"  # the plan, named after the current phase


@dataclass
class MatchReport:
    """Result of `match_csv`, as file names; `renamed` holds (old, new) pairs."""

    renamed: list[tuple[str, str]] = field(default_factory=list)  # in a dry run: to be renamed
    kept: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # listed, without a file
    extra: list[str] = field(default_factory=list)  # files, not listed
    ambiguous: list[str] = field(default_factory=list)  # a line per speaker: who, and why

    def rows(self) -> list[tuple[str, str, str]]:
        """Return the whole report as (kind, name, new name or "")."""
        rows = [("renamed", old, new) for old, new in self.renamed]
        for kind in ("kept", "missing", "extra", "ambiguous"):
            rows += [(kind, name, "") for name in getattr(self, kind)]
        return rows

    def summary(self) -> str:
        """Return the counts in one line."""
        kinds = ("renamed", "kept", "missing", "extra", "ambiguous")
        return ", ".join(f"{len(getattr(self, kind))} {kind}" for kind in kinds)


@dataclass
class _Speaker:
    """One speaker's files and rows as ``(number, name)``, sorted."""

    files: list[tuple[int, str]] = field(default_factory=list)
    rows: list[tuple[int, str]] = field(default_factory=list)


def match_csv(
    segments_dir: str | Path,
    csv_path: str | Path,
    *,
    dry_run: bool = False,
    lock: bool = True,
    before: Callable[[MatchReport], None] = lambda report: None,
) -> MatchReport:
    """Rename the audio files in a folder to the names that a CSV lists.

    Parameters
    ----------
    segments_dir
        Folder of segment files (wav or flac); subfolders are ignored.
    csv_path
        CSV with the columns ``path,label``; only the file name of `path` counts.
    dry_run
        Report and change nothing.
    lock
        Hold the folder's lock; without it, no other process may write there.
    before
        Called with the report before the first file is renamed.

    Returns
    -------
    MatchReport

    Raises
    ------
    InputError
        The folder or the CSV cannot be used, or a new name is taken by another file.
    """
    folder = Path(segments_dir)
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder, expected the segments'; correct the path")
    listed = _listed(Path(csv_path))
    if dry_run:
        if any((folder / plan).exists() for plan in (ASIDE, PLACE)):
            raise InputError(
                f"{folder}: has an interrupted renaming, expected none; run without "
                "--dry-run to finish it"
            )
        report = match_names(_audio_files(folder), listed)
        _check_free(folder, report.renamed)
        before(report)
        return report
    with folder_lock(folder, lock=lock):
        _finish(folder)
        report = match_names(_audio_files(folder), listed)
        before(report)
        _rename(folder, report.renamed)
    return report


def write_rows(rows: Iterable[tuple[str, str, str]], path: str | Path) -> None:
    """Write `MatchReport.rows` as a CSV ``kind,name,new``, atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("kind", "name", "new"), *rows])
    atomic_write(path, text.getvalue().encode())


def match_names(files: Iterable[str], listed: Iterable[str]) -> MatchReport:
    """Match `files` to the `listed` names, as the module describes.

    >>> match_names(["S_1-M_0.wav", "S_1-M_1.wav"], ["S_1-M_0003.wav", "S_1-M_0007.wav"]).renamed
    [('S_1-M_0.wav', 'S_1-M_0003.wav'), ('S_1-M_1.wav', 'S_1-M_0007.wav')]
    """
    report = MatchReport()
    sessions: dict[str, dict[str, _Speaker]] = defaultdict(lambda: defaultdict(_Speaker))
    unnumbered = _Speaker()
    for kind, names in (("files", files), ("rows", listed)):
        for name in sorted(names):
            match = NUMBERED.fullmatch(normal_name(name))
            speaker = sessions[match[2]][match[1] + match[4]] if match else unnumbered
            getattr(speaker, kind).append((int(match[3]) if match else 0, name))
    _by_name(unnumbered, report)
    for speakers in _joined(sessions):
        _match_session(speakers, report)
    return report


def _joined(sessions: dict[str, dict[str, _Speaker]]) -> list[dict[str, _Speaker]]:
    """Group speakers by session, joining sessions whose names begin with another's.

    The part before a file's last ``_`` is a session only if speakers contain no ``_``: ``S1_A`` may
    be a session, or session ``S1`` with the speakers ``A_1`` and ``A_2``.
    """
    joined: dict[str, dict[str, _Speaker]] = {}
    for name in sorted(sessions, key=lambda name: name.count("_")):
        words = name.split("_")
        shorter = ["_".join(words[:n]) for n in range(1, len(words) + 1)]
        owner = next((prefix for prefix in shorter if prefix in joined), name)
        joined.setdefault(owner, {}).update(sessions[name])
    return list(joined.values())


def _match_session(speakers: dict[str, _Speaker], report: MatchReport) -> None:
    for speaker in speakers.values():
        speaker.files.sort()
        speaker.rows.sort()
    if all(_nested(speaker) for speaker in speakers.values()):
        for speaker in speakers.values():
            _by_name(speaker, report)
        return
    running = _runs(number for speaker in speakers.values() for number, _ in speaker.files)
    for name, speaker in speakers.items():
        if not speaker.files or not speaker.rows:
            _by_name(speaker, report)
        elif reason := _doubt(speaker, running):
            report.ambiguous.append(f"{name}: {reason}")
        else:
            _by_order(speaker, report)


def _nested(speaker: _Speaker) -> bool:
    files = {normal_name(name) for _, name in speaker.files}
    rows = {normal_name(name) for _, name in speaker.rows}
    return files <= rows or rows <= files


def _runs(numbers: Iterable[int]) -> bool:
    """Return whether the numbers are consecutive, without gaps or repeats."""
    ordered = sorted(numbers)
    return ordered == list(range(ordered[0], ordered[0] + len(ordered))) if ordered else False


def _doubt(speaker: _Speaker, session_runs: bool) -> str:
    """Return why a speaker's files cannot be matched by order, or ""."""
    if len(speaker.files) != len(speaker.rows):
        return f"{counted(len(speaker.files), 'file')} for {counted(len(speaker.rows), 'row')}"
    numbers = [number for number, _ in speaker.files]
    if len(set(numbers)) < len(numbers):
        return "several files have the same number"
    shared = set(numbers) & {number for number, _ in speaker.rows}
    if shared and not session_runs and not _runs(numbers):
        return f"{counted(len(shared), 'number', 'is', of=len(numbers))} listed, the others are not"
    return ""


def _by_name(speaker: _Speaker, report: MatchReport) -> None:
    files = {normal_name(name): name for _, name in speaker.files}
    rows = {normal_name(name): name for _, name in speaker.rows}
    pairs = [(files[name], rows[name]) for name in sorted(set(files) & set(rows))]
    report.kept += [old for old, new in pairs if old == new]
    report.renamed += [(old, new) for old, new in pairs if old != new]  # another spelling
    report.missing += sorted(rows[name] for name in set(rows) - set(files))
    report.extra += sorted(files[name] for name in set(files) - set(rows))


def _by_order(speaker: _Speaker, report: MatchReport) -> None:
    for (_, old), (_, new) in zip(speaker.files, speaker.rows, strict=True):
        if old == new:
            report.kept.append(old)
        else:
            report.renamed.append((old, new))


def _listed(path: Path) -> list[str]:
    """Return the file names that a CSV lists, in its order."""
    sheet = read_delimited(path, ("path", "label"), "correct the path")
    check_columns(sheet, ("path", "label"), path)
    names: dict[str, str] = {}
    for line, file in enumerate(sheet.rows["path"], start=2):
        name = PurePosixPath(file.replace("\\", "/")).name
        suffix = name.lower().endswith(AUDIO_SUFFIXES)
        if not name.isprintable() or not suffix or normal_name(name) in names:
            raise InputError(
                f"{path}, line {line}: path is {file!r}, expected a .wav or .flac "
                "file that is not listed before; correct the row"
            )
        names[normal_name(name)] = name
    return list(names.values())


def _audio_files(folder: Path) -> list[str]:
    return [
        file.name
        for file in folder.iterdir()
        if file.suffix.lower() in AUDIO_SUFFIXES
        and not file.name.startswith(".")
        and file.is_file()
    ]


def _check_free(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """Raise `InputError` if a new name is taken by a file that will not be renamed."""
    leaving = {old for old, _ in pairs}
    for old, new in pairs:
        taken = [name for name in (new, _hidden(new)) if os.path.lexists(folder / name)]
        if set(taken) - leaving:
            raise InputError(
                f"{folder}: {old!r} would become {new!r}, but {taken[0]!r} exists and is not to be "
                "renamed; move it away"
            )


def _rename(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """Rename all pairs (old, new) through hidden names, after checking that all are free."""
    _check_free(folder, pairs)
    if pairs:
        atomic_write(folder / ASIDE, json.dumps(pairs, ensure_ascii=False, indent=0).encode())
        _finish(folder)


def _finish(folder: Path) -> None:
    """Complete the plan on disk from wherever it stopped."""
    if (folder / ASIDE).exists():
        for old, new in _plan(folder / ASIDE):
            if not (folder / _hidden(new)).exists():
                _move(folder / old, folder / _hidden(new))
        os.replace(folder / ASIDE, folder / PLACE)
    if (folder / PLACE).exists():
        for _, new in _plan(folder / PLACE):
            if (folder / _hidden(new)).exists():
                _move(folder / _hidden(new), folder / new)
        (folder / PLACE).unlink()


def _plan(path: Path) -> list[tuple[str, str]]:
    """Read a plan's pairs (old, new), checking that they are plain file names."""
    try:
        pairs = [(str(old), str(new)) for old, new in list(json.loads(path.read_bytes()))]
        strange = [
            name for pair in pairs for name in pair if Path(name).name != name or name == ".."
        ]
    except (ValueError, TypeError, RecursionError) as problem:
        strange = [repr(problem)]
    if strange:
        raise InputError(
            f"{path}: holds {strange[0]!r:.80}, expected pairs of file names; delete "
            "it, check which files have their new names, and run again"
        )
    return pairs


def _hidden(name: str) -> str:
    return f".{name}.match"


def _move(old: Path, new: Path) -> None:
    if os.path.lexists(new) or not old.exists():
        state = "is gone" if not old.exists() else f"would overwrite {new.name!r}"
        raise InputError(
            f"{old}: {state}, expected what {ASIDE} or {PLACE} says; put it right and run again"
        )
    os.rename(old, new)
