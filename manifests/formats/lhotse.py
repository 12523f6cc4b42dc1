"""Read and write lhotse manifests: supervisions become turns, and recording ids become sessions.

The input is supervisions and cuts, as JSON lines or one JSON list, optionally compressed
(``.jsonl``, ``.jsonl.gz``, ``.json``). The times of a cut's supervisions count from the cut's
start, and are shifted to the recording's; mixed cuts (``tracks``) are refused, since their times
belong to no single recording. Manifests of recordings have no turns, and are skipped with a note.
If all of a recording's channels are 0, or a turn has several channels, the turn names none.

The output is ``supervisions.jsonl.gz`` and, if the audio is known and read,
``recordings.jsonl.gz`` in a folder, or supervisions alone in a ``.jsonl`` or ``.jsonl.gz``. Times
are unchanged, but since lhotse stores a duration, an end may move by less than 1e-8 s.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...common.audio.decoding import count_samples, read_header
from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import atomic_write
from .json_values import check_not_nemo, number, parse_json_lines, read_json_text, text
from .turns import Annotation, Note, Turn, collect_turns, read_files

SUFFIXES = (".jsonl", ".json", ".gz")
DIGITS = 8  # of an end, as lhotse rounds start + duration


def read_lhotse(path: str | Path, *, skip_bad: bool = False) -> Annotation:
    """Read one manifest of supervisions or cuts, or all below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively for ``.jsonl``, ``.json``, ``.jsonl.gz``, ``.json.gz``.
    skip_bad
        Drop bad rows and files, with a note each, instead of stopping at the first.

    Returns
    -------
    Annotation
        Turns in file order, times in seconds from the recording's start.

    Raises
    ------
    InputError
        A file is not such a manifest, or a row is bad (file and number of the row).
    """
    annotation = read_files(
        path, SUFFIXES, lambda file, name: _read(file, name, skip_bad), skip_bad=skip_bad
    )
    _drop_single_channels(annotation)
    return annotation


def _read(file: Path, name: str, skip_bad: bool) -> Annotation:
    content = read_json_text(file)
    rows = parse_json_lines(content, name)
    if not any(isinstance(row, dict) and {"recording_id", "id"} & row.keys() for _, row in rows):
        check_not_nemo(content, name, "a manifest of lhotse")
    recordings = [row for _, row in rows if isinstance(row, dict) and "sampling_rate" in row]
    if rows and len(recordings) == len(rows):
        note = Note("ignored", name, f"{counted(len(rows), 'recording', 'holds')} no turn")
        return Annotation(notes=[note])
    supervisions = [(index, row) for index, value in rows for row in _supervisions(value)]
    return collect_turns(supervisions, _turn, name, unit="row", skip_bad=skip_bad)


def _supervisions(row: Any) -> Iterator[Any]:
    """Yield the supervisions of a row, itself or those of a cut, with the recording's times."""
    supervisions = row.get("supervisions") if isinstance(row, dict) else None
    if not isinstance(supervisions, list):
        yield row
        return
    for supervision in supervisions:
        offset = row.get("start", 0)
        yield {**supervision, "cut_start": offset} if isinstance(supervision, dict) else supervision


def _turn(row: Any, index: int, place: str) -> Turn:
    if not isinstance(row, dict) or "recording_id" not in row:
        shown = f"an object with {list(row)[:8]}" if isinstance(row, dict) else repr(row)[:40]
        mixed = ", of one recording" if isinstance(row, dict) and "tracks" in row else ""
        raise InputError(
            f"{place}: is {shown}, expected a supervision or a cut of lhotse with 'recording_id'"
            f"{mixed}; name the manifest of supervisions"
        )
    start = number(row, "start", place)
    if "cut_start" in row:
        start += number(row, "cut_start", place)
    return Turn(
        text(row, "recording_id", place),
        text(row, "speaker", place),
        round(start, DIGITS),
        round(start + number(row, "duration", place), DIGITS),
        *(index, place),
        _channel(row.get("channel", 0), place),
        text(row, "text", place),
    )


def _channel(value: Any, place: str) -> str:
    """Return a turn's channel; "" if it has several."""
    channels = value if isinstance(value, list) else [value]
    if not all(type(channel) is int and 0 <= channel < 10000 for channel in channels):
        raise InputError(
            f"{place}: channel is {repr(value)[:40]}, expected an index from 0; correct it"
        )
    return str(channels[0]) if len(channels) == 1 else ""


def _drop_single_channels(annotation: Annotation) -> None:
    """Remove the channel from turns of recordings in which all turns name the first."""
    several = {turn.session for turn in annotation.turns if turn.channel not in ("", "0")}
    annotation.turns = [
        turn if turn.session in several else turn._replace(channel="") for turn in annotation.turns
    ]
    annotation.notes += [
        Note("channel", session, "turns are read from the channels that they name (from 0)")
        for session in sorted(several)
    ]


def write_lhotse(
    turns: Sequence[Turn], path: str | Path, audio: Mapping[str, Path] | None = None
) -> None:
    """Write turns of any number of sessions as a manifest of supervisions; see the module.

    Parameters
    ----------
    turns
        Of all sessions.
    path
        A ``.jsonl``, a ``.jsonl.gz``, or a folder.
    audio
        Session -> recording; those that exist are listed in a folder's recordings.

    Raises
    ------
    InputError
        A recording cannot be read, or the file cannot be written.
    """
    path = Path(path)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        _write_rows(_supervision_rows(turns), path)
        return
    _write_rows(_supervision_rows(turns), path / "supervisions.jsonl.gz")
    sessions = dict.fromkeys(turn.session for turn in turns)
    files = {session: (audio or {}).get(session) for session in sessions}
    present = {session: file for session, file in files.items() if file and file.is_file()}
    if present:
        rows = [_recording_row(session, file) for session, file in present.items()]
        _write_rows(rows, path / "recordings.jsonl.gz")


def _write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    atomic_write(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _supervision_rows(turns: Sequence[Turn]) -> Iterator[dict[str, Any]]:
    width = len(str(len(turns)))
    for index, turn in enumerate(turns):
        row = {
            "id": f"{turn.session}-{index:0{width}}",
            "recording_id": turn.session,
            "start": turn.start,
            "duration": round(turn.end - turn.start, DIGITS),
            "channel": int(turn.channel or 0),
        }
        yield {**row, **({"text": turn.text} if turn.text else {}), "speaker": turn.speaker}


def _recording_row(session: str, file: Path) -> dict[str, Any]:
    header = read_header(file)
    samples, channels = count_samples(header), [*range(header.channels)]
    return {
        "id": session,
        "sources": [{"type": "file", "channels": channels, "source": str(file)}],
        "sampling_rate": header.rate,
        "num_samples": samples,
        "duration": samples / header.rate,
        "channel_ids": channels,
    }
