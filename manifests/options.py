"""The settings of ``spk-manifests``: each is an option there and an argument of the function.

A command's function keeps its own arguments, of the same names and defaults; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..common.options import CheckedOptions, joined, option_field, parse_channel, seed_field

SCOPES = ("session", "series", "corpus")
METHODS = ("chronological", "blocked-k", "leave-one-session-out", "enrol", "roll-call", "random")
FORMATS = (
    *("rttm", "whisperx", "seglst", "textgrid", "srt", "vtt", "txt", "eaf", "lhotse", "nemo"),
    *("kaldi", "csv"),
)
CUE_FORMS = ("any", "voice", "brackets", "number", "colon")
SHARE: dict[str, Any] = {"least": 0.0, "most": 1.0, "metavar": "0..1"}
SOURCE, FILES = "What is cut", "How it is cut"


@dataclass(frozen=True)
class TableOptions(CheckedOptions):
    """How to make a segment table from annotations."""

    audio_root: str | None = option_field(
        None,
        "Folder of the recordings, searched below; without it they are where PATH lists them "
        "(Kaldi, NeMo), or ends are not checked.",
        path=True,
    )
    scope: str = option_field("session", "Where one speaker id is one person.", choices=SCOPES)
    identity: str | None = option_field(
        None, "CSV session,speaker,person that names everybody.", path=True
    )
    skip_bad: bool = option_field(
        False,
        "Drop and list bad lines, unreadable recordings, and speakers whom --identity does not "
        "name, instead of stopping at the first.",
    )
    allow_unpaired: bool = option_field(
        False, "Leave out sessions without a recording, instead of stopping."
    )


@dataclass(frozen=True)
class TextGridOptions(TableOptions):
    """How to make a segment table from TextGrids."""

    tiers: tuple[str, ...] = option_field(
        (),
        "Tier that is a speaker's, by name or pattern (*, ?); may be given again.",
        default_text="all but those of words and phones; of 'A - words' speaker A",
    )
    silence: tuple[str, ...] = option_field(
        (),
        "Mark that is silence, in any case; may be given again.",
        default_text="sil sp spn <eps> h# pause",
    )


@dataclass(frozen=True)
class EafOptions(TableOptions):
    """How to make a segment table from ELAN files."""

    tiers: tuple[str, ...] = option_field(
        (),
        "Tier that is a speaker's, by name or pattern (*, ?); may be given again.",
        default_text="all that are time-aligned and have no parent",
    )
    participants: bool = option_field(
        False, "Take a tier's PARTICIPANT for the speaker, not its name."
    )


@dataclass(frozen=True)
class CueOptions(TableOptions):
    """How to make a segment table from cues (SRT, WebVTT, timed text)."""

    speakers: str = option_field(
        "any",
        "How a cue names its speaker: <v A>, [A]:, (speaker 1), A: or the first that a file has.",
        choices=CUE_FORMS,
    )


@dataclass(frozen=True)
class ExportOptions(CheckedOptions):
    """The format in which to write a table's turns."""

    format: str | None = option_field(
        None, "Format of the files.", choices=FORMATS, default_text="by OUT's suffix"
    )
    audio_root: str | None = option_field(
        None,
        "Folder that the table's relative paths start from; formats that can list recordings do so "
        "with it, or if paths are absolute.",
        path=True,
    )
    full_labels: bool = option_field(
        False, "Write speakers as in TABLE, with the session before them."
    )


@dataclass(frozen=True)
class CsvOptions(TableOptions):
    """How to make a segment table from the reference project's CSV."""

    rttm_dir: str | None = option_field(None, "RTTMs from which the files were cut.", path=True)
    last_underscore: bool = option_field(
        False, "Speakers contain no '_': split labels at the last one, if there is no cut table."
    )


@dataclass(frozen=True)
class SelectOptions(CheckedOptions):
    """Which segments of a table to keep."""

    sessions: tuple[str, ...] = option_field((), "Session to keep; may be given again.")
    min_seconds: float = option_field(0.0, "Shortest segment.", unit="s", least=0)
    max_seconds: float | None = option_field(None, "Longest segment.", unit="s", over=0)
    max_overlap: float | None = option_field(None, "Largest share of overlap.", **SHARE)
    min_segments: int = option_field(
        1, "Fewest segments per speaker, after the other rules.", least=1
    )
    keep_roll_call: bool = option_field(False, "Keep the opening roll call in any case.")


@dataclass(frozen=True)
class SplitOptions(CheckedOptions):
    """How to divide a table; None: the method's default."""

    method: str = option_field("chronological", "How to divide TABLE.", choices=METHODS)
    test_share: float | None = option_field(
        None, "Share of each speaker's segments.", default_text="0.2", **SHARE
    )
    valid_share: float | None = option_field(
        None, "Share of the rest.", default_text="0.15; random: 0", **SHARE
    )
    gap: float | None = option_field(
        None, "Purge segments nearer than this.", unit="s", least=0, default_text="2"
    )
    folds: int | None = option_field(
        None, "blocked-k: number of blocks.", least=2, default_text="5"
    )
    fold: int | None = option_field(
        None, "blocked-k: the block that is test, from 0.", least=0, default_text="0"
    )
    session: str | None = option_field(None, "leave-one-session-out: the session that is test.")
    unknown: str | None = option_field(
        None,
        "leave-one-session-out: test speakers whom no other session has.",
        choices=("refuse", "purge"),
        default_text="refuse",
    )
    seconds: float | None = option_field(
        None, "enrol: speech of each speaker to train on.", unit="s", over=0, default_text="15"
    )
    seed: int | None = seed_field("random: the seed.", optional=True)
    within: str | None = option_field(
        None,
        "random: draw within each session, or the corpus.",
        choices=("session", "corpus"),
        default_text="session",
    )


@dataclass(frozen=True)
class CutSource(CheckedOptions):
    """What to cut: a table, or the turns of RTTM files."""

    audio_root: str | None = option_field(
        None,
        "Folder that TABLE's audio is in; with --rttm-dir: of the recordings.",
        path=True,
        default_text=".",
        aliases=("pcm_dir",),
        group=SOURCE,
    )
    rttm_dir: str | None = option_field(
        None, "Instead of TABLE: folder of RTTM files.", path=True, group=SOURCE
    )
    output_dir: str | None = option_field(None, "With --rttm-dir: OUT.", path=True, group=SOURCE)
    min_seconds: float | None = option_field(
        None,
        "With --rttm-dir: shortest segment.",
        unit="s",
        least=0,
        default_text="1.5",
        group=SOURCE,
    )
    skip_bad: bool = option_field(
        False, "With --rttm-dir: drop and list bad lines and unreadable recordings.", group=SOURCE
    )
    allow_unpaired: bool = option_field(
        False, "With --rttm-dir: leave out sessions without a recording.", group=SOURCE
    )


@dataclass(frozen=True)
class CutOptions(CheckedOptions):
    """How to cut segments to files."""

    format: str = option_field(
        "wav", "Format of the files, both 16 bits.", choices=("wav", "flac"), group=FILES
    )
    channel: str = option_field(
        "0",
        "Index from 0, or mean (equal average).",
        parse=parse_channel,
        expected="an index from 0 or 'mean'",
        native=joined,
        metavar="CHANNEL",
        group=FILES,
    )
    resample: bool = option_field(False, "Accept other sample rates than 16000 Hz.", group=FILES)
    jobs: int = option_field(
        0,
        "Recordings cut in parallel; 0: one per core.",
        least=0,
        aliases=("workers",),
        group=FILES,
    )


@dataclass(frozen=True)
class DemoOptions(CheckedOptions):
    """The size and seed of the synthetic corpus."""

    sessions: int = option_field(4, "Meetings, 1 to 20.", least=1, most=20)
    minutes: float = option_field(5.0, "Minutes of each, 1 to 60.", least=1, most=60)
    speakers: int = option_field(5, "Speakers in each, 2 to 9.", least=2, most=9)
    channels: int = option_field(8, "Channels of the last, 1 to 16.", least=1, most=16)
    seed: int = seed_field("Seed of everything random.")
