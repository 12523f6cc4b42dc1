"""The settings of ``spk-classify audit``: each is an option there and an argument of `audit`."""

from __future__ import annotations

from dataclasses import dataclass

from ...common.options import AUDIO_ROOT, CheckedOptions, joined, option_field, seed_field

LEARNT, CLAIMED, HEARD = "How turns are judged", "What is proposed", "Listening"


@dataclass(frozen=True)
class AuditOptions(CheckedOptions):
    """How labels are audited, and what is proposed."""

    run: str | None = option_field(
        None,
        "Sweep folder whose layers, classifier and penalty are used.",
        path=True,
        default_text="chosen by the same folds",
        group=LEARNT,
    )
    layers: str = option_field(
        "all",
        "Without --run: all, a range 0-12 or a list 4,8.",
        native=joined,
        metavar="LAYERS",
        group=LEARNT,
    )
    classifiers: str = option_field(
        "centroid,ridge,lda",
        "Without --run: those to choose among, separated by commas.",
        native=joined,
        metavar="NAMES",
        group=LEARNT,
    )
    folds: int = option_field(
        5, "Blocks of time per speaker, each judged by the others.", least=2, group=LEARNT
    )
    gap: float = option_field(
        2.0, "Turns nearer to a judged turn are not trained on.", unit="s", least=0, group=LEARNT
    )
    identity: str | None = option_field(
        None,
        "CSV session,speaker,person: finds labels exchanged in a whole session by the other "
        "sessions; without it, one number within a series is one person.",
        path=True,
        group=LEARNT,
    )
    min_probability: float = option_field(
        0.8,
        "Least probability of a name proposed for a single turn.",
        over=0,
        most=1,
        group=CLAIMED,
    )
    min_seconds: float = option_field(
        1.0,
        "Shortest single turn for which a name is proposed: shorter ones are often misrecognised.",
        unit="s",
        least=0,
        group=CLAIMED,
    )
    audio_root: str | None = option_field(
        None,
        f"{AUDIO_ROOT} Adds clips to the page, and finds turns that hold two voices.",
        path=True,
        group=HEARD,
    )
    shown: int = option_field(50, "Most turns shown on the page.", least=0, group=HEARD)
    seed: int = seed_field("Seed of the trial with planted errors.")
    jobs: int = option_field(0, "Processes; 0: one per core.", least=0)
