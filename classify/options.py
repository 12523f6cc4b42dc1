"""The settings of ``spk-classify``: each is an option there and an argument of the function."""

from __future__ import annotations

from dataclasses import dataclass

from ..common.engine.options import beside_engine, check_engine, engine_field, ray_address_field
from ..common.errors import InputError
from ..common.options import (
    CheckedOptions,
    joined,
    numbers,
    option_field,
    parse_float,
    seed_field,
    yes_or_no,
)

CLASSIFIERS = ("centroid", "ridge", "lda", "logistic", "linear-svm", "lightgbm")
SPLITS = ("train", "valid", "test", "all")
RESAMPLES = 1000  # of the bootstrap
AUTO = "auto"  # the threshold is what open-set measured
WHAT, HOW, RUNNING = "What is tried", "How it is compared", "How it runs"
HEARD, LINKED = "What is heard", "What is linked"


def check_temperature(text: str) -> None:
    """Raise `ValueError` for any calibration but the only one there is."""
    if text != "temperature":
        raise ValueError(text)


def check_standardised(text: str) -> None:
    """Raise `ValueError` for any standardisation but the only one there is."""
    if text != "yes":
        raise ValueError(text)


def parse_unknown_below(text: str) -> None:
    """Raise `ValueError` unless the text is a probability or ``auto``."""
    if text != AUTO:
        numbers(text, 0, 1)
        parse_float(text)


@dataclass(frozen=True)
class SweepSettings(CheckedOptions):
    """What a sweep tries, and how: the options of ``spk-classify sweep`` and ``fit``."""

    within: str = option_field(
        "session",
        "A closed set of speakers per meeting, or one over all labels.",
        choices=("session", "corpus"),
        group=WHAT,
    )
    layers: str = option_field(
        "all", "all, a range 0-12 or a list 4,8.", native=joined, metavar="LAYERS", group=WHAT
    )
    combine: str = option_field(
        "alone",
        "Each layer alone, all of them in one vector, their mean, or every two or three in one "
        "vector.",
        choices=("alone", "concat", "average", "pairs", "triples"),
        group=WHAT,
    )
    pooling_part: str = option_field(
        "both",
        "Part of a vector pooled as mean+std.",
        choices=("mean", "std", "both"),
        group=WHAT,
    )
    classifiers: str = option_field(
        "centroid,ridge,lda,logistic",
        f"Some of {', '.join(CLASSIFIERS)}, separated by commas, or all.",
        native=joined,
        metavar="NAMES",
        group=WHAT,
    )
    penalty: float | None = option_field(
        None,
        "The only value tried: ridge's alpha, LDA's shrinkage (0..1), 1/C of the others.",
        default_text="chosen on validation",
        group=WHAT,
    )
    standardise: str = option_field(
        "yes",
        "Each feature to variance 1 by the training rows.",
        native=yes_or_no,
        parse=check_standardised,
        expected="yes (no and both are gone: neither was shown to name more segments)",
        repair="leave --standardise out",
        hidden=True,
        group=HOW,
    )
    folds: int = option_field(
        0,
        "Cross-validate over train and valid in this many blocks of time per speaker; 0: use the "
        "validation rows.",
        least=0,
        group=HOW,
    )
    gap: float = option_field(
        2.0,
        "With --folds: segments nearer to a held-out one are not trained on.",
        unit="s",
        least=0,
        group=HOW,
    )
    calibration: str = option_field(
        "temperature",
        "Of probabilities, on validation.",
        parse=check_temperature,
        expected="temperature (isotonic is gone: it made log-loss and calibration error worse)",
        repair="leave --calibration out",
        hidden=True,
        group=HOW,
    )
    refit: bool = option_field(
        True,
        "Refit what validation chose on train and validation before scoring test.",
        group=HOW,
    )
    seed: int = seed_field("Seed of everything random.", group=HOW)
    jobs: int = option_field(0, "Processes; 0: one per core.", least=0, group=HOW)
    engine: str = engine_field("which read STORE", group=RUNNING)
    ray_address: str | None = ray_address_field(group=RUNNING)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_engine(self.engine, self.ray_address)
        if self.jobs and self.engine != "local":
            why, repair = "which counts the cores that are there", "leave --jobs out"
            raise InputError(
                beside_engine("--jobs", self.jobs, self.engine, why=why, repair=repair)
            )


@dataclass(frozen=True)
class PredictOptions(CheckedOptions):
    """Which segments to name, and how probable a speaker must be."""

    split: str = option_field(
        "test", "Rows of TABLE that are named; all for a table without a split.", choices=SPLITS
    )
    unknown_below: str | None = option_field(
        None,
        "Name a segment 'unknown' if its most probable speaker is less probable than this; auto: "
        "the threshold that open-set found for the model.",
        parse=parse_unknown_below,
        native=joined,
        expected="a probability from 0 to 1, or auto",
        metavar="PROBABILITY",
    )
    run: str | None = option_field(
        None, "Sweep folder with the openset.csv that auto reads.", path=True
    )
    false_accepts: float = option_field(
        0.05,
        "With auto: the share of strangers that may be accepted, as measured by open-set.",
        over=0,
        under=1,
    )


@dataclass(frozen=True)
class ScoreOptions(CheckedOptions):
    """Which predictions to measure, and with how many resamples."""

    split: str = option_field("test", "Rows that are scored.", choices=SPLITS)
    resamples: int = option_field(RESAMPLES, "Bootstrap resamples.", least=1)
    seed: int = seed_field("Seed of the bootstrap.")


@dataclass(frozen=True)
class CompareOptions(CheckedOptions):
    """Which predictions to compare, and with how many resamples."""

    model_a: str | None = option_field(None, "The model of A to compare, if it has several.")
    model_b: str | None = option_field(None, "The model of B to compare, if it has several.")
    split: str = option_field("test", "Rows that are compared.", choices=SPLITS)
    resamples: int = option_field(RESAMPLES, "Bootstrap resamples.", least=1)
    seed: int = seed_field("Seed of everything random.")


@dataclass(frozen=True)
class CurveOptions(CheckedOptions):
    """How much training speech to try."""

    seconds: str = option_field(
        "1,2,5,10,30,60",
        "Training speech per speaker in s; whole segments, until it is reached.",
        native=joined,
        metavar="NUMBERS",
    )
    draws: int = option_field(
        5, "Draws of the speech: the first in time, the others random.", least=1
    )
    seed: int = seed_field("Seed of draws and bootstrap.")


@dataclass(frozen=True)
class OpenSetOptions(CheckedOptions):
    """Which rates of falsely accepted strangers to evaluate."""

    false_accepts: str = option_field(
        "0.01,0.05,0.1",
        "Shares of strangers that the threshold may accept on validation.",
        native=joined,
        metavar="NUMBERS",
    )
    seed: int = seed_field("Seed of the bootstrap.")


@dataclass(frozen=True)
class LinkOptions(CheckedOptions):
    """How labels of different sessions become persons (docs/how-to/link.md has the reasons)."""

    layer: int | None = option_field(
        None,
        "Layer of the encoder.",
        least=0,
        default_text="the one that tells the known people, or ids of a series, apart best",
        group=HEARD,
    )
    min_seconds: float = option_field(
        5.0, "A label with less speech is left out as short.", unit="s", least=0, group=HEARD
    )
    same_id: float = option_field(
        0.99,
        "Prior probability that an id is one person in two sessions of a series; 0: ids are "
        "ignored.",
        least=0,
        under=1,
        group=LINKED,
    )
    min_confidence: float = option_field(
        0.8, "A label with less confidence is left out as unsure.", least=0, most=1, group=LINKED
    )


@dataclass(frozen=True)
class ReportOptions(CheckedOptions):
    """What the report shows."""

    table: str | None = option_field(
        None, "Segment table: adds durations, overlaps, the split and its leaks.", path=True
    )
    audio_root: str | None = option_field(
        None, "Folder of the recordings: adds clips of the errors; needs --table.", path=True
    )
    errors: int = option_field(20, "Most confident errors to show of each run.", least=0)
    split: str = option_field("test", "Rows that are reported.", choices=SPLITS)
    title: str = option_field("Who speaks in the meeting", "Title of the page.")
