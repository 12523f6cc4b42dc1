"""Sentences about an audit that claim no more than it shows."""

from __future__ import annotations

from collections.abc import Sequence

from ...common.counts import counted
from ..features import encoder_kind
from .findings import EXCHANGE, OUTLIER, SESSION, SWAP, TWO, Audit
from .trial import CARRIES

MEANING = {
    SESSION: "labels of two speakers exchanged throughout a session, by the other sessions",
    EXCHANGE: "labels of two speakers exchanged for a stretch of time",
    SWAP: "another speaker of the session fits better",
    TWO: "the two halves are two people's",
    OUTLIER: "fits nobody of the session: crosstalk or noise",
}
MOST_NAMED = 20  # sessions listed in lines; the file lists every turn
MIXED = (
    "A proposal is no finding: a recogniser's own mistakes look like wrong labels, so listen "
    "before you correct."
)


def facts(audit: Audit) -> list[str]:
    """Return lines on an audit's settings, its findings, and its limits."""
    config = audit.store.config
    encoder = f"{config['encoder']}{encoder_kind(config, ' ({})')}"
    judged = audit.turns["quality"].notna()
    count = audit.turns["session"][judged].nunique()
    sessions = counted(count, "session")
    return [
        f"encoder: {encoder}; judged out of fold by {audit.learner.name}",
        f"judged: {counted(judged.sum(), 'turn', of=len(audit.turns))} in {sessions}; the most "
        f"probable speaker is the label in {audit.accuracy:.1%}",
        *_trial_lines(audit),
        *_kind_lines(audit),
        *_not_looked_for(audit),
        *left_out_lines(audit),
    ]


def _trial_lines(audit: Audit) -> list[str]:
    trial = audit.trial
    if not trial.planted:
        return ["trial: no turn is free of suspicion to plant an error in; nothing is proposed"]
    text = (
        f"trial: of {counted(trial.planted, 'error')} planted in unsuspected turns of "
        f"{audit.options.min_seconds:g} s and more {_percent(trial.recall)} are found with the "
        "right name"
    )
    if not trial.carries:
        few = trial.recall[2] >= CARRIES
        return [
            f"{text}, less than half, though too few to be sure: nothing is proposed; audit more "
            "turns or sessions at once, or use another encoder"
            if few
            else f"{text}, less than half: these features cannot carry an audit, and nothing is "
            "proposed; use another encoder"
        ]
    if not trial.proposed:
        return [text]
    return [
        f"{text}; {_percent(trial.precision)} of what is proposed then is right, counting all "
        "that is proposed now as the recogniser's mistakes"
    ]


def _percent(share: Sequence[float]) -> str:
    value, low, high = share
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def _kind_lines(audit: Audit) -> list[str]:
    counts = audit.turns["kind"].value_counts()
    lines = [
        f"{kind}: {counted(counts[kind], 'turn')}, {MEANING[kind]}"
        for kind in MEANING
        if kind in counts
    ]
    proposed = int(audit.turns["proposed"].sum())
    lines.append(
        f"proposed: {counted(proposed, 'correction')}" + (f". {MIXED}" if proposed else "")
    )
    return lines


def _not_looked_for(audit: Audit) -> list[str]:
    lines = []
    if not audit.listened:
        lines.append("not looked for: turns of two voices; pass --audio-root")
    if not audit.related:
        lines.append(
            "not looked for: labels exchanged throughout a session, since no two sessions are "
            "known to share people; pass --identity"
        )
    return lines


def left_out_lines(audit: Audit) -> list[str]:
    """Return lines on the turns that could not be judged, by session and reason."""
    groups = audit.left_out.groupby(["session", "reason"]).size()
    lines = [
        f"left out: {counted(count, 'turn')} of {session}, {reason}"
        for (session, reason), count in groups.items()
    ]
    if len(lines) > MOST_NAMED:
        lines = [*lines[:MOST_NAMED], f"left out: {len(lines) - MOST_NAMED} more, see audit.csv"]
    return lines
