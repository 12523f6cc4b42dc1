"""The report: one self-contained HTML page about runs; same input, same bytes.

The page consists of text, SVG and short clips, and needs no network. Jinja2 escapes everything that
comes from files; a content security policy allows only the page's own script, by its hash, and no
fetching.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ...common.log import log, with_progress
from ...manifests.split_record import read_record, summarise
from ...manifests.splits.leakage import leakage_report
from ...manifests.table import read_table
from ..evaluation.score import measure
from ..features import Log
from ..speaker_model import versions
from . import analyses, figures
from .errors import AudioClip, Clips, Error, find_errors, players
from .runs import ReportedRun, read_runs
from .sessions import by_meeting, meetings, meetings_table, sessions_of, short, speakers_table
from .summary import caveats, doubts, summary
from .tables import (
    CONFIDENCE,
    MEANING,
    NAMING,
    difference_table,
    leaks_table,
    pairs_of,
    provenance,
    runs_table,
    sweep_commands,
    trials_table,
    unlike_notes,
)

if TYPE_CHECKING:
    import pandas as pd


TEMPLATES = Path(__file__).with_name("templates")
ERRORS = 20
STRATA = {"duration": "length of the segment", "overlap": "share in which others speak too"}
KEPT_OPEN = 12  # meetings up to which their cards are expanded


def report(
    runs: Sequence[str],
    *,
    table: str | Path | None = None,
    audio_root: str | Path | None = None,
    errors: int = ERRORS,
    split: str = "test",
    title: str = "Who speaks in the meeting",
    log: Log = lambda text: None,
) -> str:
    """Return an HTML page that shows runs side by side.

    Parameters
    ----------
    runs : PATH or NAME=PATH each
        As `runs.read_runs` takes them.
    table : path of the segment table that was predicted, optional
        Adds durations, overlaps, the split's record and its leakage, and times of the errors.
    audio_root : folder of the recordings, optional
        Adds clips to listen to; needs `table`.
    errors : int
        Number of most confident errors to show per run.
    split : "train", "valid", "test" or "all"
        Rows of the predictions to report.
    log : function of one str
        Called with each reason to doubt the numbers; the page shows them too.

    Raises
    ------
    InputError
        A run or the table cannot be read, or the table lacks a predicted segment.
    """
    _check_options(table, audio_root, errors)
    loaded = read_runs(runs, split=split)
    segments = None if table is None else read_table(table)
    with_bar = with_progress(loaded, "runs")
    measures = [measure(run.predictions, segments, split="all") for run in with_bar]
    pairs = pairs_of(loaded)
    by_id = None if segments is None else segments.set_index("segment_id")
    wrong, sounds = _with_players(find_errors(loaded, by_id, most=errors), segments, audio_root)
    doubtful = doubts(loaded, segments)
    doubt_lines = [f"{loaded[place].name}: {text}" for place, text in doubtful]
    for line in (*doubt_lines, *unlike_notes(loaded)):
        log(line)
    return _page(
        title=title,
        split=split,
        runs=loaded,
        summary=summary(loaded, measures, pairs),
        naming=runs_table(loaded, measures, NAMING),
        confidence=runs_table(loaded, measures, CONFIDENCE),
        accuracies=_accuracies(loaded, measures),
        pairs=difference_table(loaded, pairs) if pairs else None,
        cautions=caveats(loaded, pairs),
        doubts=doubtful,
        sweeps=[_sweep(place, run) for place, run in enumerate(loaded) if run.trials is not None],
        by_meeting=by_meeting(loaded),
        meetings_table=meetings_table(loaded),
        meetings=meetings(loaded, segments),
        speakers=speakers_table(loaded),
        strata=_strata(loaded, measures),
        calibration=[_calibration(place, run) for place, run in enumerate(loaded)],
        beside=analyses.sections(loaded, table),
        errors=wrong,
        listen={"table": table is not None, "audio": audio_root is not None, "errors": errors},
        sounds=sounds,
        division=None if table is None or segments is None else _division(table, segments),
        provenance=provenance(loaded),
        commands=sweep_commands(loaded, table),
        command=_command(runs, table=table, audio_root=audio_root, errors=errors, split=split),
        versions={**versions(), **_drawn_with()},
    )


def write_report(
    runs: Sequence[str | Path] | Mapping[str, str | Path],
    path: str | Path,
    *,
    log: Log = log,
    **options: Any,
) -> None:
    """Write the page that shows runs side by side; it needs no network.

    Parameters
    ----------
    runs
        Folders of sweeps, or predictions tables; or a mapping of names to these.
    path
        ``.html``; an existing file is replaced.
    log
        Receives each reason to doubt the numbers; the page shows them too.
    options
        `table`, `audio_root`, `errors`, `split` and `title` of `report`.

    Raises
    ------
    InputError
        As for `report`, or the page cannot be written.

    Examples
    --------
    >>> write_report({"ridge": "sweep"}, "report.html", table="table.csv")  # doctest: +SKIP
    """
    named = [f"{name}={run}" for name, run in runs.items()] if isinstance(runs, Mapping) else runs
    atomic_write(path, report([str(run) for run in named], log=log, **options).encode())


def _check_options(table: str | Path | None, audio_root: str | Path | None, errors: int) -> None:
    if errors < 0:
        raise InputError(f"errors: {errors} is given, expected 0 or more; correct --errors")
    if audio_root is not None and table is None:
        raise InputError("audio-root: no table is given, expected one; pass --table too")


def _command(runs: Sequence[str], **options: Any) -> str:
    """Return the command that makes this page, without its title and output file."""
    pairs = [(f"--{key.replace('_', '-')}", str(v)) for key, v in options.items() if v is not None]
    words = [word for option in pairs for word in option]
    return shlex.join(["spk-classify", "report", *runs, *words])


def _page(**content: Any) -> str:
    return render(
        "report.html",
        **content,
        short=short,
        meaning=MEANING,
        kept_open=KEPT_OPEN,
        sessions=sessions_of(content["runs"]),
    )


@dataclass(frozen=True)
class Card:
    """A doubtful item on a page of `cards_to_hear`: its label, the better one, and clips."""

    session: str
    own: str  # a label or a cluster
    better: str  # who fits better
    group: str  # cards are filtered by it
    tags: tuple[str, ...]
    facts: str
    why: str
    players: tuple[AudioClip, ...]


def render(template: str, **content: Any) -> str:
    """Return a page from one of `TEMPLATES`, with the style and the only script that may run."""
    import jinja2
    from markupsafe import Markup

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        **content,
        glyph=figures.glyph,
        hues=figures.HUES,
        script=Markup(script),  # noqa: S704  the package's own
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),  # noqa: S704
        script_hash=f"sha256-{digest}",
    )


def _accuracies(runs: Sequence[ReportedRun], measures: Sequence[pd.DataFrame]) -> Any:
    """Draw the runs' accuracies one below the other, pooled and as mean over meetings."""
    names = {"accuracy": "all segments", "accuracy_meetings": "mean of meetings"}
    series = []
    for table in measures:
        rows = table[(table["stratum"] == "all") & table["measure"].isin(names)]
        series.append({names[row["measure"]]: _bar(row) for row in rows.to_dict("records")})
    return figures.bars(list(names.values()), series, name="runs", label="Accuracy of each run")


def _bar(row: dict[str, Any]) -> figures.Bar:
    return figures.Bar(row["value"], row["low"], row["high"], int(row["segments"]))


def _sweep(place: int, run: ReportedRun) -> dict[str, Any]:
    trials = run.trials
    if trials is None or not len(figures.single_layers(trials)):
        return {"run": place, "layers": None, "map": None, "table": trials_table(trials)}
    return {
        "run": place,
        "classifiers": list(dict.fromkeys(trials["classifier"])),
        "layers": figures.by_layer(trials, name=f"layers-{place}"),
        "map": figures.heat_map(trials, name=f"map-{place}"),
        "table": trials_table(trials),
    }


def _strata(runs: Sequence[ReportedRun], measures: Sequence[pd.DataFrame]) -> list[tuple[str, Any]]:
    """Return (caption, figure) by length and by overlap, if the table has them."""
    drawn = []
    for stratum, caption in STRATA.items():
        series: list[dict[str, figures.Bar]] = []
        groups: dict[str, int] = {}
        for table in measures:
            rows = table[table["stratum"] == stratum].to_dict("records")
            series.append({row["group"]: _bar(row) for row in rows})
            for row in rows:
                groups[row["group"]] = max(groups.get(row["group"], 0), int(row["segments"]))
        if groups:
            titles = {group: f"{group}  (n = {count})" for group, count in groups.items()}
            shown = [{titles[group]: bar for group, bar in bars.items()} for bars in series]
            figure = figures.bars(
                list(titles.values()), shown, name=stratum, label=f"Accuracy by {caption}"
            )
            drawn.append((f"By {caption}", figure))
    return drawn


def _calibration(place: int, run: ReportedRun) -> tuple[int, Any]:
    rows = run.predictions
    correct = (rows["speaker"] == rows["predicted"]).to_numpy()
    confidence = rows["score"].to_numpy(np.float64)
    name = f"reliability-{place}"
    return place, figures.reliability(confidence, correct, number=place, name=name)


def _with_players(
    errors: list[Error], table: pd.DataFrame | None, audio_root: str | Path | None
) -> tuple[list[Error], dict[str, str]]:
    if table is None or audio_root is None:
        return errors, {}
    if not Path(audio_root).is_dir():
        raise InputError(
            f"{audio_root}: no such folder, expected the recordings' folder; correct it"
        )
    clips = Clips(Path(audio_root), table.set_index("segment_id"))
    heard = []
    for error in errors:
        names = (short(error.speaker, error.session), short(error.predicted, error.session))
        heard.append(replace(error, players=players(error, clips, names)))
    return heard, clips.sounds


def _division(path: str | Path, table: pd.DataFrame) -> dict[str, Any]:
    """Return the split's summary and leakage report, or why there is none."""
    record = read_record(path)
    try:
        shares, why = leaks_table(leakage_report(table)), ""
    except InputError as problem:
        shares, why = None, str(problem)
    text = "" if record is None else summarise(record)
    return {
        "summary": text,
        "parameters": {} if record is None else record.get("parameters", {}),
        "leaks": shares,
        "why": why,
    }


def _drawn_with() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("pandas", "matplotlib", "jinja2")}
