"""The settings of ``spk name``: each is an option there and an argument of the function."""

from __future__ import annotations

from dataclasses import dataclass

from ...common.errors import InputError
from ...common.options import CheckedOptions, joined, option_field, parse_channel

DEFAULT_ENCODER = "small"  # of clips
ZIP = b"PK\3\4"  # first bytes of a voices file
SAME_NAME = ("auto", "never", "always")
FORMATS = ("rttm", "json", "csv", "srt", "vtt", "txt")
ENROLMENT, DECISION, READING, WRITING = (
    "What is enrolled",
    "Who gets a name",
    "What is read",
    "What is written",
)


@dataclass(frozen=True)
class EnrolOptions(CheckedOptions):
    """How people are enrolled: the options of ``spk name enrol``."""

    layer: int | None = option_field(
        None,
        "Layer of the encoder.",
        least=0,
        default_text="of new voices the one that tells left-out speech best, of others theirs",
        group=ENROLMENT,
    )
    encoder: str | None = option_field(
        None,
        "With --clips: hub id, local folder, small or mfcc.",
        default_text=f"the voices', or {DEFAULT_ENCODER}",
        group=ENROLMENT,
    )
    audio_root: str | None = option_field(
        None,
        "Folder that the table's relative paths start from, so that the review page can play the "
        "voices.",
        path=True,
        group=ENROLMENT,
    )


def parse_names(text: str) -> None:
    """Raise `ValueError` for a list of names with an empty one."""
    if not all(part.strip() for part in text.split(",")):
        raise ValueError(text)


def parse_formats(text: str) -> None:
    """Raise `ValueError` unless all are `FORMATS`."""
    if not {part.strip() for part in text.split(",")} <= {*FORMATS}:
        raise ValueError(text)


@dataclass(frozen=True)
class NamingOptions(CheckedOptions):
    """How clusters get names: options of ``spk name apply``."""

    false_accepts: float = option_field(
        0.05,
        "Share of strangers that may be given a name, measured on the enrolment with people left "
        "out.",
        least=0,
        under=1,
        group=DECISION,
    )
    threshold: float | None = option_field(
        None,
        "Least probability that gives a name; without calibration, least score.",
        default_text="by --false-accepts",
        group=DECISION,
    )
    present: str | None = option_field(
        None,
        "The only people who can have been present, separated by commas.",
        native=joined,
        parse=parse_names,
        expected="names separated by commas",
        metavar="NAMES",
        default_text="all that are enrolled",
        group=DECISION,
    )
    same_name: str = option_field(
        "auto",
        "Whether clusters may share a name; auto: those that hardly speak at once.",
        choices=SAME_NAME,
        group=DECISION,
    )
    min_purity: float = option_field(
        0.7,
        "Least share of a cluster's speech that points to the same person by itself.",
        least=0,
        most=1,
        group=DECISION,
    )
    min_seconds: float = option_field(
        5.0, "A cluster with less speech gets no name.", unit="s", least=0, group=DECISION
    )
    input_format: str | None = option_field(
        None,
        "Format of DIARIZATION: rttm, whisperx, eaf, lhotse, nemo, kaldi, srt, vtt, txt, csv, ...",
        metavar="NAME",
        default_text="by its suffix and content",
        group=READING,
    )
    channel: str | None = option_field(
        None,
        "Index from 0, or mean, if the diarization names none.",
        parse=parse_channel,
        native=joined,
        expected="an index from 0 or 'mean'",
        metavar="CHANNEL",
        default_text="as the voices'",
        group=READING,
    )
    encoder: str | None = option_field(
        None, "Where the voices' encoder is now.", default_text="as enrolled", group=READING
    )
    device: str = option_field("auto", "auto, cpu, cuda or cuda:i.", group=READING)

    @property
    def present_names(self) -> list[str]:
        """Return the names in `present`; none if anybody may have been there."""
        return [] if self.present is None else [name.strip() for name in self.present.split(",")]


@dataclass(frozen=True)
class OutputOptions(CheckedOptions):
    """What ``spk name apply`` writes."""

    formats: str = option_field(
        "rttm,json,csv",
        f"Some of {', '.join(FORMATS)}, separated by commas.",
        native=joined,
        parse=parse_formats,
        expected=f"some of {', '.join(FORMATS)}",
        metavar="NAMES",
        group=WRITING,
    )
    review: bool = option_field(
        False, "Also write review.html: clusters to listen to beside the voices.", group=WRITING
    )

    @property
    def format_names(self) -> list[str]:
        """Return the formats, in the order of `FORMATS`."""
        typed = {part.strip() for part in self.formats.split(",")}
        return [name for name in FORMATS if name in typed]


def check_one_audio(audio: object, audio_root: object, *, listed: bool) -> None:
    """Raise `InputError` unless one is given, or none if the diarization lists recordings."""
    neither = audio is None and audio_root is None
    if (audio is None) == (audio_root is None) and not (listed and neither):
        given = "none is given" if audio is None else "both are given"
        raise InputError(
            f"--audio, --audio-root: {given}, expected one of them; pass the recording, or the "
            "folder of recordings named after their sessions"
        )
