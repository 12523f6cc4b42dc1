"""The command ``spk-classify``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..common.click_options import option, options_of
from ..common.commands import (
    LEFT_OUT,
    Command,
    Group,
    exit_left_out,
    locks,
    version_option,
    writes,
)
from ..common.counts import counted
from ..common.outputs import MEASURES, TABLE, Output
from ..common.terminal import show, warn_of
from .auditing.commands import audit
from .cli_analysis import curve, open_set, report
from .linking.commands import link
from .options import CompareOptions, PredictOptions, ScoreOptions, SweepSettings

CLIPS = "Known voices"
_IDENTITY = option(
    "--identity",
    type=click.Path(path_type=Path),
    help="CSV session,speaker,person: over all labels, merges those of one person; without it, one "
    "number within a series is one person.",
)


@click.group(cls=Group, context_settings={"auto_envvar_prefix": "SPK_CLASSIFY"})
@version_option
def main() -> None:
    """Tell who speaks in each segment, from cached features: try, fit, predict, score."""


main.add_command(audit)
main.add_command(curve)
main.add_command(open_set)
main.add_command(report)
main.add_command(link)


@main.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@options_of(SweepSettings)
@_IDENTITY
@locks
@writes(
    Output("out", folder=True, mark="cells.jsonl"),
    overwrite="Restart OUT if it holds another sweep; the same sweep resumes.",
)
def sweep(
    table: Path,
    store: Path,
    out: Path,
    *,
    identity: Path | None,
    overwrite: bool,
    no_lock: bool,
    **settings: Any,
) -> None:
    """Compare layers and classifiers on validation, score the chosen one on test, write to OUT.

    TABLE is a segment table with a split, STORE its features. OUT receives sweep.csv, sweep.png,
    predictions.csv and metrics.csv (the chosen one on test) and config.json; within the corpus also
    control.csv: does it recognise the voice or the room? Finished combinations are kept in
    OUT/cells.jsonl: a stopped sweep resumes; one with another table, store or setting needs
    --overwrite. Meetings that cannot be used are left out by name (left_out.csv). Exit code 3 if
    there are any, or if layers were given up because they killed their process; nothing is chosen
    then.
    """
    from ..common.engine.work import UnitsFailedError
    from ..common.locks import folder_lock
    from ..common.next_steps import know
    from ..common.outputs import check_own_folder
    from ..manifests.split_record import split_method
    from ..manifests.table import read_table
    from .experiment import run_experiment
    from .output import WRITTEN, outcome_parts, write_outcome

    rows, split = read_table(table), split_method(table)
    check_own_folder(out, "cells.jsonl", WRITTEN)
    with folder_lock(out, lock=not no_lock):
        try:
            outcome = run_experiment(
                rows,
                store,
                SweepSettings(**settings),
                split=split,
                log=click.echo,
                keep=out / "cells.jsonl",
                anew=overwrite,
                identity=identity,
            )
        except UnitsFailedError as problem:
            click.echo(str(problem), err=True)
            know(unfinished=True)
            sys.exit(LEFT_OUT)
        written = write_outcome(outcome, out)
    show(*outcome_parts(outcome))
    click.echo(f"wrote {out}/{', '.join(written)}")
    exit_left_out(outcome.left_out["segment_id"])


class _Fit(Command):
    """`fit`, where --clips takes the place of TABLE and STORE."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; with --clips the one argument is MODEL."""
        rest = super().parse_args(ctx, args)
        if ctx.resilient_parsing:  # a shell completes what is not finished
            return rest
        names, clips = ("table", "store", "model"), ctx.params["clips"]
        given = [ctx.params[name] for name in names if ctx.params[name] is not None]
        if len(given) != (1 if clips else 3):
            wanted = "MODEL alone beside --clips" if clips else "TABLE STORE MODEL"
            raise click.UsageError(
                f"{counted(len(given), 'argument', 'is')} given, expected {wanted}.", ctx
            )
        if ctx.params["encoder"] and not clips:
            raise click.UsageError("--encoder is of --clips; STORE has its own.", ctx)
        ctx.params |= dict(zip(names, [None, None, *given] if clips else given, strict=True))
        return rest


@main.command(cls=_Fit)
@click.argument("table", required=False, type=click.Path(path_type=Path))
@click.argument("store", required=False, type=click.Path(path_type=Path))
@click.argument("model", required=False, type=click.Path(path_type=Path))
@options_of(SweepSettings)
@option(
    "--clips",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    group=CLIPS,
    help="Train on the voices of FOLDER/NAME/*.wav instead of TABLE and STORE: one set of all "
    "names.",
)
@option(
    "--encoder",
    group=CLIPS,
    help="Encoder of the clips, as in spk-extract.",
)
@writes(
    Output("model", folder=True, mark="model.json"),
    overwrite="Replace an existing model once the new one is complete.",
)
def fit(
    table: Path,
    store: Path,
    model: Path,
    *,
    clips: Path | None,
    encoder: str | None,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Fit what validation chooses on the train rows of TABLE, and save it in the folder MODEL.

    Name one layer, classifier and penalty to fit exactly that. Without validation rows nothing is
    chosen: centroid on the mean of the layers, with uncalibrated probabilities. Test rows are not
    read.
    """
    from ..extract.options import DEFAULT_ENCODER
    from ..manifests.split_record import split_method
    from ..manifests.table import read_table
    from .clips import fit_clips
    from .experiment import fit_best
    from .speaker_model_files import check_foretold, check_replaceable, save_model

    check_replaceable(model, overwrite=overwrite)
    chosen = SweepSettings(**settings)

    def check(foretold: Mapping[str, Any]) -> None:
        if not overwrite:
            check_foretold(model, foretold, chosen)

    if clips:
        fitted, facts, left_out = fit_clips(
            clips, chosen, encoder=encoder or DEFAULT_ENCODER, log=click.echo, before=check
        )
    else:
        rows, split = read_table(table), split_method(table)
        fitted, facts, left_out = fit_best(
            rows, store, chosen, split=split, log=click.echo, before=check
        )
    save_model(fitted, model, left_out, overwrite=overwrite)
    on = fitted.origin["fitted_on"]
    click.echo("\n".join(facts))
    classifiers = counted(len(fitted.fitted), "classifier")
    click.echo(f"wrote {model}: {fitted.name}, {classifiers}, fitted on {on}")
    exit_left_out(left_out["segment_id"])


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("predictions", type=click.Path(path_type=Path))
@options_of(PredictOptions)
@writes(Output("predictions", TABLE, beside={".left_out.csv": b"segment_id,session,reason"}))
def predict(
    model: Path, table: Path, store: Path, predictions: Path, *, split: str, **options: Any
) -> None:
    """Name the speakers of TABLE's segments with MODEL; STORE must be of the model's encoder.

    Segments that cannot be named are listed in PREDICTIONS.left_out.csv.
    """
    from ..manifests.predictions import unnamed_lines, with_unknown
    from ..manifests.table import read_table, write_predictions
    from .evaluation.measured_threshold import threshold_of
    from .features import open_store
    from .selection.prepare import write_left_out
    from .speaker_model import doubts, name_segments, unnamed_rows
    from .speaker_model_files import load_model

    fitted, rows = load_model(model), read_table(table)
    below = threshold_of(fitted, **options)
    named, left_out = name_segments(fitted, rows, open_store(store), split=split)
    named = named if below is None else with_unknown(named, below)
    write_predictions(named, predictions)
    rest = unnamed_rows(fitted, named, rows, split)
    listed = Path(f"{predictions}.left_out.csv")
    for what, why in left_out.items():
        warn_of(f"left out: {what}, {why}")
    for line in doubts(fitted, named, rows):
        warn_of(line)
    for line in unnamed_lines(named, below):
        click.echo(line)
    also = f"; {len(rest)} left out: {listed}" if write_left_out(rest, listed) else ""
    click.echo(
        f"wrote {predictions}: {counted(len(named), 'segment')}, {named['model'].iloc[0]}{also}"
    )
    exit_left_out(rest["segment_id"])


@main.command()
@click.argument("predictions", type=click.Path(path_type=Path))
@option(
    "--table",
    type=click.Path(path_type=Path),
    help="Segment table: adds durations, overlaps and the training majority.",
)
@option("--output", "-o", type=click.Path(path_type=Path), help="Every measure, as .csv or .json.")
@options_of(ScoreOptions)
@_IDENTITY
@writes(Output("output", MEASURES))
def score(
    predictions: Path,
    table: Path | None,
    output: Path | None,
    identity: Path | None,
    **options: Any,
) -> None:
    """Measure PREDICTIONS, with 95 % intervals over meetings and segments.

    With --table, predictions over all labels are followed by their control: the accuracy with the
    labels of one person merged, and how well the meeting is recognised, if `sweep` wrote that
    beside them.
    """
    from ..common.errors import InputError
    from ..manifests.split_record import split_method
    from ..manifests.table import read_predictions, read_table
    from .evaluation.confounds import confound_tables
    from .evaluation.score import measure, scored_rows
    from .evaluation.wording import conclude_score
    from .output import controls_parts, measures_parts, warnings_of, write_metrics
    from .validity import doubts_of

    if identity is not None and table is None:
        raise InputError("identity: no table is given, expected one; pass --table too")
    segments = None if table is None else read_table(table)
    facts = [] if table is None else [f"split: {split_method(table)}"]
    named = read_predictions(predictions)
    measures = measure(named, segments, **options)
    facts += [*warnings_of(measures), *doubts_of(scored_rows(named, options["split"]), segments)]
    controls = {}
    if segments is not None:
        beside, split, seed = (
            predictions.with_name("control.csv"),
            options["split"],
            options["seed"],
        )
        controls = confound_tables(
            named, segments, identity=identity, split=split, seed=seed, beside=beside
        )
    if output is not None:
        write_metrics(measures, output, facts=facts)
    show(*facts, *measures_parts(measures), *controls_parts(controls))
    show("", *conclude_score(measures, scored_rows(named, options["split"])))
    click.echo(
        f"models scored: {measures['model'].nunique()}" + (f", wrote {output}" if output else "")
    )


@main.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@option("--output", "-o", type=click.Path(path_type=Path), help="Every number, as .csv or .json.")
@options_of(CompareOptions)
@writes(Output("output", MEASURES))
def compare(a: Path, b: Path, output: Path | None, **settings: Any) -> None:
    """Compare the predictions tables A and B on the segments that both hold.

    Prints accuracies, B - A with 95 % intervals, how often only one of them is right, and McNemar's
    p, over all and by meeting. It claims only what the interval supports.
    """
    from ..manifests.table import read_predictions
    from .evaluation.compare import compare as pair
    from .output import comparison_facts, comparison_parts, write_metrics

    comparison = pair(read_predictions(a), read_predictions(b), **settings)
    if output is not None:
        facts = [*comparison_facts(comparison), comparison.conclusion]
        write_metrics(comparison.rows, output, facts=facts)
        click.echo(f"wrote {output}")
    show(*comparison_parts(comparison))
    exit_left_out(map(len, comparison.unpaired))
