"""Make the page to listen by: each doubtful turn beside clean turns of both speakers.

It is one HTML file in the style of the report (`report.page`), and needs no network; the same input
gives the same bytes. Without ``--audio-root`` it has no clips.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...manifests.formats.aishell4 import local_speaker
from ..report.errors import LONGEST, SAMPLE, AudioClip, Clips
from ..report.page import Card, render
from ..report.tables import Cell, Table, number_cell, percent
from .findings import KINDS, OUTLIER, Audit
from .wording import MEANING, facts

if TYPE_CHECKING:
    import pandas as pd

TITLE = "Labels to review"
HEADS = (
    ("rank", "1: the most doubtful label"),
    ("turn", ""),
    ("labelled", "with the label's probability below"),
    ("better", "the speaker that fits better, with the probability below"),
    ("quality", "of the label: 0 is wrong, 1 is right"),
    ("kind", "what is wrong, if anything is said"),
)


def audit_page(audit: Audit, *, title: str = TITLE) -> str:
    """Return the HTML page about an audit."""
    rows = audit.turns
    doubtful = rows[(rows["kind"] != "") | rows["issue"]].head(audit.options.shown)
    root = audit.options.audio_root
    clips = None if root is None else Clips(Path(root), audit.table.set_index("segment_id"))
    samples = _clean_turns(rows, audit.table)
    cards = [_card(row, clips, samples) for row in doubtful.to_dict("records")]
    return render(
        "audit.html",
        title=title,
        cards=cards,
        every=int(((rows["kind"] != "") | rows["issue"]).sum()),
        summary=[f"{line}." if line[-1] != "." else line for line in facts(audit)],
        turns=_turns_table(doubtful),
        heard=clips is not None,
        sounds={} if clips is None else clips.sounds,
        provenance=_provenance(audit),
    )


def _clean_turns(turns: pd.DataFrame, table: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return {(session, speaker): the turn that best shows what the speaker sounds like}.

    Among turns without suspicion that are long enough, it is the one with the surest label.
    """
    rows = turns[(turns["kind"] == "") & ~turns["issue"] & turns["quality"].notna()]
    seconds = (rows["end"] - rows["start"]).clip(upper=SAMPLE)
    overlap = table.set_index("segment_id").get("overlap")
    mixed = 0.0 if overlap is None else rows["segment_id"].map(overlap)
    rows = rows.assign(seconds=seconds, mixed=mixed)
    order = ["mixed", "seconds", "labelled_probability", "segment_id"]
    rows = rows.sort_values(order, ascending=[True, False, False, True])
    best = rows.drop_duplicates(["session", "labelled"])
    pairs = zip(best["session"], best["labelled"], strict=True)
    return dict(zip(pairs, best["segment_id"], strict=True))


def _card(
    row: Mapping[str, Any], clips: Clips | None, samples: Mapping[tuple[str, str], str]
) -> Card:
    session = str(row["session"])
    labelled, better = (local_speaker(session, str(row[k])) for k in ("labelled", "suggested"))
    kind = str(row["kind"])
    tags = [kind] if kind else ["suspected"]
    tags += ["proposed"] if row["proposed"] else []
    chances = [
        f"{name} {_percent(row[key])}"
        for name, key in ((labelled, "labelled_probability"), (better, "probability"))
        if not math.isnan(row[key])
    ]
    where = f"{row['start']:.1f} to {row['end']:.1f} s · {', '.join(chances)}"
    return Card(
        session=session,
        own=labelled,
        better="nobody" if kind == OUTLIER else better,
        group=kind or "suspected",
        tags=tuple(tags),
        facts=where,
        why=f"{MEANING[kind][0].upper()}{MEANING[kind][1:]}." if kind else "",
        players=() if clips is None else tuple(_players(row, clips, samples)),
    )


def _percent(chance: float) -> str:
    """Return a probability in per cent, rounded down, so that nothing appears certain."""
    return percent(math.floor(1000 * chance) / 1000)


def _players(
    row: Mapping[str, Any], clips: Clips, samples: Mapping[tuple[str, str], str]
) -> Iterator[AudioClip]:
    session = str(row["session"])
    yield clips.player(str(row["segment_id"]), "this turn", LONGEST)
    for key, what in (("labelled", "labelled"), ("suggested", "fits better")):
        name = local_speaker(session, str(row[key]))
        sample = samples.get((session, str(row[key])))
        caption = f"{name}, {what}"
        if sample is None:
            yield AudioClip(caption, note="every turn of this speaker is suspected")
        else:
            yield clips.player(sample, caption, SAMPLE)


def _turns_table(rows: pd.DataFrame) -> Table:
    cells = [
        [
            number_cell(float(row["rank"])),
            Cell(f"{row['start']:.1f} to {row['end']:.1f} s", str(row["session"])),
            _speaker_cell(row, "labelled", "labelled_probability"),
            _speaker_cell(row, "suggested", "probability"),
            number_cell(float(row["quality"]), "{:.3f}"),
            Cell(str(row["kind"]), "proposed" if row["proposed"] else ""),
        ]
        for row in rows.to_dict("records")
    ]
    return Table(HEADS, cells)


def _speaker_cell(row: Mapping[str, Any], name: str, chance: str) -> Cell:
    shown = "" if np.isnan(row[chance]) else _percent(row[chance])
    return Cell(local_speaker(str(row["session"]), str(row[name])), shown)


def _provenance(audit: Audit) -> dict[str, str]:
    from importlib.metadata import version

    given = {k: v for k, v in vars(audit.options).items() if v not in (None, "")}
    return {
        "encoder": str(audit.store.config["encoder"]),
        "judged by": audit.learner.name,
        "settings": ", ".join(f"{key.replace('_', '-')} {value}" for key, value in given.items()),
        "kinds": "; ".join(f"{kind}: {MEANING[kind]}" for kind in KINDS),
        **{name: version(name) for name in ("spk-toolkit", "cleanlab")},
    }
