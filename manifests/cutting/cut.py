"""Cut meetings into one mono 16 kHz file per segment, each recording decoded once.

A folder of cut segments contains

``{session}_{speaker}_{NNNN}.wav``
    16-bit mono at 16 kHz; ``NNNN`` is the 0-based line of the annotation, as in the thesis project.
    If one channel of a 16-bit recording is taken, its samples are copied unchanged.
``segments.csv``
    the thesis project's listing, columns ``path,label``, sorted by session and line.
``segments.table.csv``
    the segment table of these files: same ids, start 0. Features made from it join the old table.
``cut.json``
    the request. Cutting again resumes where it stopped; a file cut from another recording, time
    span, channel or format is never taken for the requested one.

A file gets its final name only when it is complete and on disk, so every visible segment file is
complete. The two tables are written last, once all files exist.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.audio.containers import check_files_exist
from ...common.audio.decoding import (
    Header,
    PastEndError,
    check_channel,
    check_has_channel,
    clipped_text,
    end_of,
)
from ...common.counts import counted
from ...common.cpus import available_cores
from ...common.errors import InputError
from ...common.files import atomic_write
from ...common.locks import folder_lock
from ...common.log import with_progress
from ...common.names import normal_name
from ..formats.cut_names import cut_stem
from ..table import check_table, id_names, sample_span, write_table
from .recording import RATE, Recording, SampleRange, cut_recording, inspect_recording, is_complete
from .request import REQUEST, record_request

if TYPE_CHECKING:
    import pandas as pd


FORMATS = ("wav", "flac")
LISTING = "segments.csv"
TABLE = "segments.table.csv"


@dataclass(frozen=True, eq=False)
class CutReport:
    """Result of `cut_segments`: its two tables, and how much of the work was new."""

    table: pd.DataFrame  # segment table of the cut files, rows as given
    listing: pd.DataFrame  # path, label
    written: int  # files cut now
    complete: int  # files that were already complete
    decoded: int  # recordings opened for cutting
    decoded_seconds: float  # s of audio decoded, over all recordings
    clipped: list[str]  # a line for each recording that is shorter than its header claims

    def __repr__(self) -> str:
        """Return how much was done, in one line."""
        files = counted(self.written, "file")
        return f"<CutReport {files} written, {self.complete} already complete>"


def cut_segments(  # noqa: PLR0913  (the options of the command)
    table: pd.DataFrame,
    audio_root: str | Path,
    out: str | Path,
    *,
    format: str = "wav",  # noqa: A002  (the command's option is --format)
    channel: str | int = "0",
    resample: bool = False,
    jobs: int = 0,
    lock: bool = True,
) -> CutReport:
    """Cut every segment of `table` to a mono 16 kHz file in `out`; the module lists its files.

    Parameters
    ----------
    table
        Segment table; `line` names the files (without it, `segment_id` does).
    audio_root
        Folder that the table's `audio` is relative to.
    out
        Folder to write to; may hold an earlier, interrupted cut of the same request.
    format
        ``wav`` or ``flac``, both 16 bits.
    channel
        0-based index of the channel to take, or ``mean`` for the average of all; rows that name a
        channel in the column ``channel`` use that one.
    resample
        Convert other sample rates to 16 kHz, each segment on its own; otherwise they are refused.
    jobs
        Recordings cut at a time, >= 0; 0 means one per core.
    lock
        Hold the folder's lock; without it, no other process may write there.

    Returns
    -------
    CutReport
        The table of the cut files, their listing, and how much was new.

    Raises
    ------
    InputError
        The table or an option is wrong; a recording is missing, damaged, too short or of another
        rate; or `out` contains segments of another request. Files already cut are kept.
    """
    channel = check_channel(str(channel))
    settings = {"format": format, "channel": channel, "resample": resample}
    _check_settings(settings, jobs)
    table = check_table(table)
    names = file_names(table, format)
    spans, recordings, clipped = _plan(table, names, Path(audio_root), settings)
    listing = list_files(table, out, format=format)
    _check_tables(Path(out), listing)
    with folder_lock(out, lock=lock):
        for part in Path(out).glob(f".*.{format}.part"):  # left by a killed run
            part.unlink()
        record_request(Path(out), _request(settings, spans, recordings))
        todo = _unfinished(Path(out), spans, recordings)
        seconds = _cut_all(todo, recordings, Path(out), jobs)
        _check_still_there(Path(out), names)
        cut_table = _cut_table(table, names, spans, recordings)
        write_table(cut_table, Path(out, TABLE))
        write_listing(listing, Path(out, LISTING))
        _check_still_there(Path(out), names)  # writing the tables recreates a deleted folder
    written = sum(map(len, todo.values()))
    complete = len(table) - written
    return CutReport(cut_table, listing, written, complete, len(todo), seconds, clipped)


def _check_tables(out: Path, listing: pd.DataFrame) -> None:
    """Refuse to overwrite tables that no cut wrote, except the listing of ``--listing-only``."""
    if (out / REQUEST).exists():
        return
    taken = [name for name in (LISTING, TABLE) if os.path.lexists(out / name)]
    if taken == [LISTING] and (out / LISTING).is_file():
        taken = [] if (out / LISTING).read_bytes() == _listing_bytes(listing) else taken
    if taken:
        raise InputError(
            f"{out}: holds {taken[0]!r} and no {REQUEST} that says how it was cut, expected a "
            "new folder or one of an earlier cut; name another folder"
        )


def file_names(table: pd.DataFrame, format: str = "wav") -> list[str]:  # noqa: A002
    """Return the name of each row's cut file, in table order, as the thesis project names them.

    ``{session}_{speaker}_{NNNN}``, with the speaker as annotated and NNNN the 0-based annotation
    line, or ``{segment_id}`` if the table has no column `line`. Names too long for a file system
    are shortened around a hash (`cut_names.cut_stem`).

    Raises
    ------
    InputError
        Two segments get the same name, or a name is not a plain file name.
    """
    if "line" in table:
        names = [
            f"{cut_stem(_local(row.segment_id, row.session, row.speaker), row.line)}.{format}"
            for row in table.itertuples()
        ]
    else:
        names = [f"{cut_stem(identity)}.{format}" for identity in table["segment_id"]]
    owners: dict[str, str] = {}
    for name, identity in zip(names, table["segment_id"], strict=True):
        if "/" in name or "\\" in name or not name.isprintable() or name.startswith("."):
            raise InputError(
                f"table: segment {identity!r} would be cut to {name!r}, expected a plain file "
                "name; correct its session and speaker"
            )
        if name in owners:
            raise InputError(
                f"table: segments {owners[name]!r} and {identity!r} would both be cut to {name!r}, "
                "expected one name each; delete the column 'line', and files are named by their ids"
            )
        owners[name] = identity
    return names


def _local(identity: str, session: str, speaker: str) -> str:
    """Return ``{session}_{local speaker}``, whatever the scope of the table's speakers."""
    names = normal_name(id_names(identity))
    if names.startswith(f"{session}_"):
        return names
    return speaker if speaker.startswith(f"{session}_") else f"{session}_{speaker}"


def _check_settings(settings: Mapping[str, object], jobs: int) -> None:
    if settings["format"] not in FORMATS:
        raise InputError(
            f"format: {settings['format']!r} is unknown, expected wav or flac; pass one"
        )
    if jobs < 0:
        raise InputError(f"jobs: {jobs} is below 0, expected 0 (one per core) or more")


def _plan(
    table: pd.DataFrame, names: list[str], root: Path, settings: Mapping[str, object]
) -> tuple[dict[str, list[SampleRange]], dict[str, Recording], list[str]]:
    """Read every recording's header before anything is cut, and locate the segments in it.

    The third item reports recordings that are shorter than their header claims.
    """
    if not len(table):
        raise InputError("table: 0 segments are listed, expected at least 1; loosen the selection")
    channels = _channels(table, str(settings["channel"]))
    resample = bool(settings["resample"])
    paths = [str(root / audio) for audio in table["audio"].unique()]
    # Anything there that is not a file is identified when it is opened.
    check_files_exist([p for p in paths if os.path.isfile(p) or not os.path.lexists(p)], root)
    recordings = {
        audio: inspect_recording(root / audio, resample=resample)
        for audio in sorted(set(table["audio"]))
    }
    spans: dict[str, list[SampleRange]] = {audio: [] for audio in recordings}
    clipped = {}
    for row, name, channel in zip(table.itertuples(), names, channels, strict=True):
        header = recordings[row.audio].header
        check_has_channel(header, channel, _channel_repair(row))
        first, stop = sample_span(row.start, row.end, header.rate)
        end = _end(header, first, stop, row.segment_id)
        if end < stop:
            clipped[row.audio] = clipped_text(header)
        spans[row.audio].append(SampleRange(name, first, end, channel))
    return spans, recordings, list(clipped.values())


def _channels(table: pd.DataFrame, channel: str) -> list[str]:
    """Return the channel to cut each row from: its own if it names one, or else `channel`."""
    own = table["channel"] if "channel" in table else [""] * len(table)
    return [check_channel(name) if name else channel for name in own]


def _channel_repair(row: Any) -> str:
    if getattr(row, "channel", ""):
        return f"correct the column 'channel' of segment {row.segment_id!r}"
    return "pass --channel 0 or mean"


def _end(header: Header, first: int, stop: int, name: str) -> int:
    """Return the sample at which a segment ends in its recording; it has at least 1 sample."""
    try:
        end = end_of(header, first, stop, f"segment {name!r}")
    except PastEndError as problem:
        raise InputError(f"{problem}; make the table again with this audio folder") from None
    if first >= end:
        raise InputError(
            f"{header.path}: segment {name!r} takes samples {first} to {end}, expected at least "
            f"1 of {header.frames}; make the table again with this audio folder"
        )
    return end


def _request(
    settings: Mapping[str, object],
    spans: Mapping[str, list[SampleRange]],
    recordings: Mapping[str, Recording],
) -> dict[str, dict[str, Any]]:
    """Return everything that determines the files' content, for `request.record_request`."""
    return {
        "settings": dict(settings),
        "recordings": {
            audio: [recording.header.size, recording.mark, *_way(recording.header)]
            for audio, recording in recordings.items()
        },
        "segments": {
            span.name: [audio, span.first, span.stop, *_own_channel(span, settings)]
            for audio, parts in spans.items()
            for span in parts
        },
    }


def _way(header: Header) -> list[str]:
    """Mark cuts of formats without exact seeking, which older versions cut by seeking."""
    return [] if header.exact else ["decoded from its start"]


def _own_channel(span: SampleRange, settings: Mapping[str, object]) -> list[str]:
    """Return the row's channel if it differs from that of the settings."""
    return [] if span.channel == settings["channel"] else [span.channel]


def _unfinished(
    out: Path, spans: Mapping[str, list[SampleRange]], recordings: Mapping[str, Recording]
) -> dict[str, list[SampleRange]]:
    """Return per recording the segments whose file is missing or incomplete."""
    left = {
        audio: [
            span
            for span in parts
            if not is_complete(out / span.name, recordings[audio].samples(span))
        ]
        for audio, parts in spans.items()
    }
    return {audio: parts for audio, parts in left.items() if parts}


def _cut_all(
    todo: Mapping[str, list[SampleRange]],
    recordings: Mapping[str, Recording],
    out: Path,
    workers: int,
) -> float:
    """Cut several recordings at a time, longest first; return the seconds decoded.

    Threads, not processes: libsndfile releases the GIL while decoding, and killing the run leaves
    no worker process that keeps writing.
    """
    longest = sorted(todo, key=lambda audio: -recordings[audio].header.frames)
    pool = ThreadPoolExecutor(workers or available_cores())
    jobs = [pool.submit(cut_recording, recordings[audio], todo[audio], out) for audio in longest]
    try:
        done = with_progress(as_completed(jobs), "recordings", total=len(jobs))
        return sum(job.result() for job in done)
    finally:
        pool.shutdown(cancel_futures=True)


def _check_still_there(out: Path, names: list[str]) -> None:
    """Raise `InputError` if files were deleted since they were cut, perhaps with their folder."""
    gone = [name for name in names if not (out / name).exists()]
    if gone:
        raise InputError(
            f"{out}: {counted(len(gone), 'cut file', 'has', of=len(names))} disappeared, "
            f"first {gone[0]!r}, expected all; leave the folder alone, or name another, and cut "
            "again"
        )


def _cut_table(
    table: pd.DataFrame,
    names: list[str],
    spans: Mapping[str, list[SampleRange]],
    recordings: Mapping[str, Recording],
) -> pd.DataFrame:
    """Return the segment table of the cut files: `audio`, `start` and `end` (s) replaced."""
    seconds = {
        span.name: recordings[audio].samples(span) / RATE
        for audio, parts in spans.items()
        for span in parts
    }
    mono = table.drop(columns="channel", errors="ignore")  # the cut files have a single channel
    return mono.assign(audio=names, start=0.0, end=[seconds[name] for name in names])


def list_files(
    table: pd.DataFrame,
    out: str | Path,
    *,
    format: str = "wav",  # noqa: A002
) -> pd.DataFrame:
    """Return the thesis project's listing of a cut to `out`: `path` and `label`. Needs no audio.

    Rows are sorted by session and line; paths start with `out` as given.
    """
    order = [column for column in ("session", "line", "start", "segment_id") if column in table]
    paths = [os.path.join(out, name) for name in file_names(table, format)]
    listed = table.assign(path=paths, label=table["speaker"]).sort_values(order, kind="stable")
    return listed[["path", "label"]].reset_index(drop=True)


def write_listing(listing: pd.DataFrame, path: str | Path) -> None:
    """Write the thesis project's listing atomically."""
    atomic_write(path, _listing_bytes(listing))


def _listing_bytes(listing: pd.DataFrame) -> bytes:
    return listing.to_csv(index=False, lineterminator="\n").encode()
