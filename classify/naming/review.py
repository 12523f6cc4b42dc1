"""Make the page to review names: each cluster's clips beside the enrolled voice, doubtful first.

It is one HTML file in the style of the report (`report.page`), and needs no network; the same input
gives the same bytes. If a recording no longer exists, a note replaces its clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..report.errors import LONGEST, AudioClip, Clips
from ..report.page import Card, render
from ..report.svg import figure_to_svg, hue
from ..report.tables import Cell, Table, number_cell, percent
from .assignment import CONFLICT, MIXED, SHORT, STRANGER
from .decision import Named, rounded_down
from .meeting import summary

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup
    from matplotlib.axes import Axes

TITLE = "Names to review"
OWN, OTHER, VOICE = 2, 2, 2  # clips for the name, for others, and of the enrolled voice
WHY = {
    STRANGER: "Nobody who is enrolled fits well enough.",
    SHORT: "Too little speech that is nobody else's at the same time.",
    MIXED: "Its segments point to several people; listen to those that point to others.",
    CONFLICT: "A cluster that speaks at the same time has the name that fits best.",
}
HEADS = (
    ("cluster", ""),
    ("name", ""),
    ("probability", "of the name, or that nobody enrolled fits"),
    ("second", "the next most probable person"),
    ("margin", "score above the next person's"),
    ("speech", "s of speech that the name is based on"),
    ("purity", "share that points to the same person by itself"),
    ("reason", "why it has no name, or not the best"),
)
WIDTH, ROW, EDGE = 9.5, 0.22, 0.7  # inches of a timeline, a row, the axis


def review_page(named: Named, *, title: str = TITLE) -> str:
    """Return the HTML page about the result of `apply`.

    Parameters
    ----------
    named
        Its evidence needs `audio`, the path of each segment's recording.
    """
    rows = named.clusters.sort_values("doubtful", ascending=False, kind="stable")
    clips = Clips(Path("/"), _clip_table(named))
    cards = [_card(row, named, clips) for row in rows.to_dict("records")]
    sessions = sorted({*named.clusters["session"]})
    timelines = [
        (session, timeline(named.turns[named.turns["session"] == session], name=f"turns-{place}"))
        for place, session in enumerate(sessions)
    ]
    return render(
        "review.html",
        title=title,
        cards=cards,
        doubtful=int(named.clusters["doubtful"].sum()),
        sessions=sessions,
        summary=[f"{line}." for line in summary(named)],
        clusters=_clusters_table(named),
        timelines=timelines,
        sounds=clips.sounds,
        provenance=_provenance(named),
    )


def _clip_table(named: Named) -> pd.DataFrame:
    """Return all playable segments, by id: the evidence, and samples of the voices."""
    import pandas as pd

    columns = ["audio", "start", "end", "channel"]
    segments = named.evidence[columns].set_axis(_evidence_ids(named), axis=0)
    samples = pd.DataFrame(
        [
            (sample.audio, sample.start, sample.end, sample.channel)
            for sample in named.voices.samples
        ],
        columns=columns,
        index=[f"voice {number}" for number in range(len(named.voices.samples))],
    )
    return pd.concat([segments, samples]) if len(samples) else segments


def _evidence_ids(named: Named) -> list[str]:
    return [f"segment {number}" for number in range(len(named.evidence))]


def _card(row: Mapping[str, Any], named: Named, clips: Clips) -> Card:
    sure = percent(rounded_down(float(row["probability"]), 3))
    tags = [f"{sure} sure"] if sure else []
    tags += ["doubtful"] if row["doubtful"] else []
    facts = f"{row['seconds']:.1f} s of speech"
    if not np.isnan(row["purity"]):
        facts += f" · purity {percent(row['purity'], 0)} · margin {row['margin']:.2f}"
    if row["second"]:
        facts += f" · next: {row['second']}"
    return Card(
        session=str(row["session"]),
        own=str(row["cluster"]),
        better=str(row["name"]),
        group=str(row["name"]),
        tags=tuple(tags),
        facts=facts,
        why=WHY.get(str(row["reason"]), ""),
        players=tuple(_players(row, named, clips)),
    )


def _players(row: Mapping[str, Any], named: Named, clips: Clips) -> Iterator[AudioClip]:
    """Yield clips that suggest the cluster's person, clips that suggest others, and the voice."""
    here = (named.evidence["session"] == row["session"]) & (
        named.evidence["cluster"] == row["cluster"]
    )
    segments = named.evidence.assign(id=_evidence_ids(named))[here]
    segments = segments.assign(seconds=segments["end"] - segments["start"])
    segments = segments.sort_values("seconds", ascending=False, kind="stable")
    person = row["name"] if row["name"] in named.voices.names else row["second"]
    mine = segments["best"] == person
    for part, count in ((segments[mine], OWN), (segments[~mine], OTHER)):
        for segment in part.head(count).to_dict("records"):
            caption = f"{row['cluster']} at {segment['start']:.1f} s, by itself {segment['best']}"
            yield clips.player(segment["id"], caption, LONGEST)
    samples = [
        (k, sample) for k, sample in enumerate(named.voices.samples) if sample.person == person
    ]
    for number, sample in samples[:VOICE]:
        yield clips.player(f"voice {number}", f"{person} as enrolled, {sample.session}", LONGEST)
    if person and not samples:
        note = "no audio was named when this person was enrolled (--audio-root)"
        yield AudioClip(f"{person} as enrolled", note=note)


def _clusters_table(named: Named) -> Table:
    rows = [
        [
            Cell(str(row["cluster"]), str(row["session"])),
            Cell(str(row["name"]), "doubtful" if row["doubtful"] else ""),
            Cell(percent(rounded_down(row["probability"], 3)), sort=float(row["probability"])),
            Cell(str(row["second"])),
            number_cell(float(row["margin"]), "{:.2f}"),
            number_cell(float(row["seconds"]), "{:.1f}"),
            Cell(percent(row["purity"], 0), sort=float(row["purity"])),
            Cell(str(row["reason"])),
        ]
        for row in named.clusters.to_dict("records")
    ]
    return Table(HEADS, rows)


def timeline(turns: pd.DataFrame, *, name: str) -> Markup:
    """Draw who speaks when, a row per name, from turns with `name`, `start` and `end`."""
    names: Sequence[str] = list(dict.fromkeys(turns["name"]))

    def paint(axes: Axes) -> None:
        for place, person in enumerate(names):
            part = turns[turns["name"] == person]
            spans = list(zip(part["start"], part["end"] - part["start"], strict=True))
            axes.broken_barh(spans, (place - 0.35, 0.7), color=hue(place), linewidth=0)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set(xlabel="s", xlim=(float(turns["start"].min()), float(turns["end"].max())))

    size = (WIDTH, ROW * len(names) + EDGE)
    return figure_to_svg(paint, name=name, size=size, label="Who speaks when")


def _provenance(named: Named) -> dict[str, str]:
    from importlib.metadata import version

    voices = named.voices
    facts = dict(zip(("voices", "scores", "calibration"), voices.summary(), strict=True))
    options = vars(named.options).items()
    given = ", ".join(f"{key.replace('_', '-')} {value}" for key, value in options if value)
    return {**facts, "settings": given, "spk-toolkit": version("spk-toolkit")}
