"""The most confident errors, with short audio clips embedded in the page.

Each error comes with a sample of the predicted speaker and one of the true speaker: the longest of
their training segments among those with the least overlap. Clips are 16 kHz mono FLAC, unprocessed;
a clip that several errors need is stored once. An unavailable clip is replaced by a note.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.errors import InputError
from ...extract.audio import CODES, ReadOptions, Rejected, Segment, read_segment
from ...manifests.predictions import names_nobody
from .runs import ReportedRun

if TYPE_CHECKING:
    import pandas as pd


LONGEST = 6.0  # s, of an error
SAMPLE = 4.0  # s, of a speaker
READING = ReadOptions(rate=16000, channel="0", resample=True)


@dataclass(frozen=True)
class AudioClip:
    """A clip to play (`clip` is a key of `Clips.sounds`), or a `note` on why there is none."""

    caption: str
    clip: str = ""
    note: str = ""


@dataclass(frozen=True)
class Error:
    """A segment that a run misidentified; times in s, None without a table."""

    run: int
    segment_id: str
    session: str
    speaker: str
    predicted: str
    score: float
    start: float | None = None
    end: float | None = None
    overlap: float | None = None
    players: tuple[AudioClip, ...] = ()

    @property
    def sure(self) -> str:
        """Return the score in per cent, rounded down: 99.97 must not read as certainty."""
        return f"{math.floor(1000 * self.score) / 10:.1f} %"


@dataclass(eq=False)
class Clips:
    """Clips from the recordings below `root`; `sounds` holds each once, as a data URI."""

    root: Path
    table: pd.DataFrame  # indexed by segment id
    sounds: dict[str, str] = field(default_factory=dict)
    _keys: dict[tuple[str, float], str] = field(default_factory=dict)

    def player(self, name: str, caption: str, longest: float) -> AudioClip:
        """Return a clip of at most the first `longest` s of a segment of the table."""
        row = self.table.loc[name]
        seconds = float(row["end"] - row["start"])
        stop = float(row["start"]) + min(seconds, longest)
        if seconds > longest:
            caption += f", first {longest:g} of {seconds:.1f} s"
        key = self._keys.get((name, longest), f"clip-{len(self._keys)}")
        if key not in self.sounds:
            path = str(self.root / row["audio"])
            try:
                start, channel = float(row["start"]), str(row.get("channel", ""))
                self.sounds[key] = _sound(Segment(name, path, start, stop, channel))
            except (Rejected, InputError) as problem:
                why = CODES[problem.code] if isinstance(problem, Rejected) else str(problem)
                return AudioClip(caption, note=f"{row['audio']}: {why}")
        self._keys[name, longest] = key
        return AudioClip(caption, key)


def _sound(segment: Segment) -> str:
    """Return a segment as a data URI of 16-bit FLAC."""
    import soundfile

    samples = read_segment(segment, READING).samples
    file = io.BytesIO()
    soundfile.write(file, samples.clip(-1, 1), READING.rate, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(file.getvalue()).decode()}"


def find_errors(
    runs: Sequence[ReportedRun], table: pd.DataFrame | None, *, most: int
) -> list[Error]:
    """Return each run's errors, at most `most` of each, the most confident first.

    Ties are in order of segment id. `table` is indexed by segment id.
    """
    errors: list[Error] = []
    for number, run in enumerate(runs):
        rows = run.predictions[~names_nobody(run.predictions)]
        wrong = rows[rows["speaker"] != rows["predicted"]]
        order = wrong.sort_values(["score", "segment_id"], ascending=[False, True], kind="stable")
        for row in order.head(most).to_dict("records"):
            names = ("segment_id", "session", "speaker", "predicted", "score")
            error = Error(number, *(row[name] for name in names))
            errors.append(error if table is None else _timed(error, table))
    return sorted(errors, key=lambda error: (-error.score, error.segment_id, error.run))


def _timed(error: Error, table: pd.DataFrame) -> Error:
    row = table.loc[error.segment_id]
    overlap = float(row["overlap"]) if "overlap" in row else None
    return replace(error, start=float(row["start"]), end=float(row["end"]), overlap=overlap)


def players(error: Error, clips: Clips, names: tuple[str, str]) -> tuple[AudioClip, ...]:
    """Return clips of the error itself, of the predicted speaker, and of the true speaker.

    `names` are the true and the predicted speaker as the page displays them.
    """
    true, taken = names
    clips_of = [clips.player(error.segment_id, "this segment", LONGEST)]
    for speaker, caption in (
        (error.predicted, f"{taken}, whom it was taken for"),
        (error.speaker, f"{true}, who it was"),
    ):
        sample = _sample(clips.table, error, speaker)
        if sample is None:
            clips_of.append(
                AudioClip(caption, note="no training segment of this speaker is in the table")
            )
        else:
            clips_of.append(clips.player(sample, caption, SAMPLE))
    return tuple(clips_of)


def _sample(table: pd.DataFrame, error: Error, speaker: str) -> str | None:
    """Return a speaker's best sample segment, from the error's own session if possible."""
    rows = table[(table["speaker"] == speaker) & (table.index != error.segment_id)]
    if "split" in rows:
        rows = rows[rows["split"] == "train"]
    here = rows[rows["session"] == error.session]
    rows = here if len(here) else rows
    if not len(rows):
        return None
    keys = rows.assign(
        seconds=(rows["end"] - rows["start"]).clip(upper=SAMPLE),
        mixed=rows.get("overlap", 0.0),
        name=rows.index,
    )
    order = keys.sort_values(["mixed", "seconds", "name"], ascending=[True, False, True])
    return str(order.index[0])
