"""The most confident mistakes, each with what one would listen to: short clips held in the page.

Beside the mistake itself stand a sample of the speaker it was taken for and one of the true
speaker: the longest of their training segments among those with least overlap. Clips are 16 kHz
mono FLAC, as recorded, and a clip that several mistakes need is kept once. A clip that cannot be
had is a note in its place.
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
from .runs import ReportedRun

if TYPE_CHECKING:
    import pandas as pd


LONGEST = 6.0  # s, of a mistake
SAMPLE = 4.0  # s, of a speaker
READING = ReadOptions(rate=16000, channel="0", resample=True)


@dataclass(frozen=True)
class AudioClip:
    """What is played, or why not: `clip` is a key of `Clips.sounds`, or empty beside a `note`."""

    caption: str
    clip: str = ""
    note: str = ""


@dataclass(frozen=True)
class Error:
    """One segment that a run named wrongly; times in s, None without a table."""

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
        """Return the score in per cent, rounded down: nobody is quite sure at 99.97."""
        return f"{math.floor(1000 * self.score) / 10:.1f} %"


@dataclass(eq=False)
class Clips:
    """Clips out of the recordings below `root`; `sounds` holds each once, as a data URI."""

    root: Path
    table: pd.DataFrame  # indexed by segment id
    sounds: dict[str, str] = field(default_factory=dict)
    _keys: dict[tuple[str, float], str] = field(default_factory=dict)

    def player(self, name: str, caption: str, longest: float) -> AudioClip:
        """Return what plays at most the first `longest` s of a segment of the table."""
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


def find_mistakes(
    runs: Sequence[ReportedRun], table: pd.DataFrame | None, *, errors: int
) -> list[Error]:
    """Return each run's `errors` most confident mistakes, most confident first.

    Equal scores stand in order of segment id. `table` is indexed by segment id.
    """
    found: list[Error] = []
    for number, run in enumerate(runs):
        wrong = run.predictions[run.predictions["speaker"] != run.predictions["predicted"]]
        order = wrong.sort_values(["score", "segment_id"], ascending=[False, True], kind="stable")
        for row in order.head(errors).to_dict("records"):
            names = ("segment_id", "session", "speaker", "predicted", "score")
            one = Error(number, *(row[name] for name in names))
            found.append(one if table is None else _timed(one, table))
    return sorted(found, key=lambda one: (-one.score, one.segment_id, one.run))


def _timed(mistake: Error, table: pd.DataFrame) -> Error:
    row = table.loc[mistake.segment_id]
    overlap = float(row["overlap"]) if "overlap" in row else None
    return replace(mistake, start=float(row["start"]), end=float(row["end"]), overlap=overlap)


def players(mistake: Error, clips: Clips, names: tuple[str, str]) -> tuple[AudioClip, ...]:
    """Return the mistake itself, a sample of who it was taken for, and one of who it was.

    `names` are the true and the taken-for speaker as the page calls them.
    """
    true, taken = names
    found = [clips.player(mistake.segment_id, "this segment", LONGEST)]
    for speaker, caption in (
        (mistake.predicted, f"{taken}, whom it was taken for"),
        (mistake.speaker, f"{true}, who it was"),
    ):
        sample = _sample(clips.table, mistake, speaker)
        if sample is None:
            found.append(
                AudioClip(caption, note="no training segment of this speaker is in the table")
            )
        else:
            found.append(clips.player(sample, caption, SAMPLE))
    return tuple(found)


def _sample(table: pd.DataFrame, mistake: Error, speaker: str) -> str | None:
    """Return the segment that shows a speaker best, of the mistake's meeting where there is one."""
    rows = table[(table["speaker"] == speaker) & (table.index != mistake.segment_id)]
    if "split" in rows:
        rows = rows[rows["split"] == "train"]
    here = rows[rows["session"] == mistake.session]
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
