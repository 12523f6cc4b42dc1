"""The command ``spk-finetune``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..common.click_options import option, options_of
from ..common.commands import BUSY, LEFT_OUT, Group, locks, version_option, writes
from ..common.counts import counted
from ..common.engine.options import stopping_line
from ..common.log import log, warn
from ..common.next_steps import know
from ..common.outputs import BESIDE_STORE, TABLE, Output
from ..common.signals import stop_after_batch
from ..common.terminal import warn_of
from .config import WITHOUT_EFFECT, FinetuneConfig
from .options import EmbedOptions, PredictOptions


@click.group(cls=Group, context_settings={"auto_envvar_prefix": "SPK_FINETUNE"})
@version_option
def main() -> None:
    """Train the encoder itself to tell speakers apart, meeting by meeting; use the result."""


@main.command()
@click.argument("table", required=False, type=click.Path())
@option("--config", type=click.Path(), help="YAML file, or a preset: transfer, baseline.")
@options_of(FinetuneConfig, defaults=False)
@option(
    *(f"--{name.replace('_', '-')}" for name in WITHOUT_EFFECT), hidden=True, expose_value=False
)
@locks
def fit(table: str | None, config: str | None, *, no_lock: bool, **given: Any) -> None:
    """Fine-tune one model per session of TABLE (a segment table with a split), or one for all.

    Run it again to resume where it stopped. LOG_DIR receives config.yaml, sessions.csv,
    predictions.csv and a folder version_X per session with its checkpoints. Exit code: 0 all done,
    1 something to repair, 3 some segments could not be used or some sessions not trained (or given
    up by --engine ray), 4 another process is working on some of the sessions, 130 or 143
    interrupted.
    """
    from ..common.errors import InputError
    from ..manifests.split_record import split_method
    from ..manifests.table import read_table
    from .config import read_config

    typed = _chosen(given)
    settings = _with_seed_of_folder(read_config(config, typed), config, typed)
    path = table or settings.csv_path
    if path is None:
        raise InputError(
            "TABLE: is not given, and neither is csv_path, expected one; name a segment table"
        )
    from .run import train_table

    know(table=path, tuned=str(Path(settings.log_dir, "predictions.csv")))
    with stop_after_batch(log, stopping_line(settings.engine)) as caught:
        done = train_table(
            read_table(path),
            settings,
            split=split_method(path),
            stop=lambda: bool(caught),
            log=click.echo,
            lock=not no_lock,
            warn=warn,
        )
    if done.text:
        click.echo(done.text)
    if done.busy:
        warn(
            f"another process is working on {counted(len(done.busy), 'session')}, first "
            f"{done.busy[0]!r}"
        )
    if done.interrupted:
        log("interrupted; run the same command to resume")
        sys.exit(128 + caught[0])
    know(unfinished=bool(done.failed))
    sys.exit(BUSY if done.busy else LEFT_OUT if done.left_out or done.failed else 0)


def _with_seed_of_folder(
    settings: FinetuneConfig, config: str | None, typed: dict[str, Any]
) -> FinetuneConfig:
    """Return the settings, with the seed of the run in their folder if none is named.

    Version 0.1.0 had another default seed: this way its runs resume with the command that began
    them.
    """
    from ..common.errors import InputError
    from .config import read_values

    path = Path(settings.log_dir, "config.yaml")
    if "seed" in typed or (config and "seed" in read_values(config)) or not path.is_file():
        return settings
    try:
        return replace(settings, seed=read_values(path).get("seed", settings.seed))
    except InputError:  # another program's file, which is refused together with the folder
        return settings


def _chosen(given: dict[str, Any]) -> dict[str, Any]:
    """Return the typed options; comma-separated values of a repeatable option are split."""
    chosen = {}
    for name, value in given.items():
        if isinstance(value, tuple) and value:
            chosen[name] = tuple(part for text in value for part in text.split(","))
        elif value not in (None, ()):
            chosen[name] = value
    return chosen


@main.command()
@click.argument("checkpoint", type=click.Path())
@click.argument("table", type=click.Path())
@click.argument("predictions", type=click.Path())
@options_of(PredictOptions)
@writes(Output("predictions", TABLE))
def predict(checkpoint: str, table: str, predictions: str, **options: Any) -> None:
    """Name the speakers of TABLE's segments; write the predictions table PREDICTIONS.

    CHECKPOINT is a .ckpt file, or the folder of several sessions: each session is named by its own
    model. Exit code: 0 all done, 1 something to repair, 3 some segments or sessions are not named.
    """
    from ..manifests.table import read_table, write_predictions
    from .prediction import predict as name_speakers

    named = name_speakers(checkpoint, read_table(table), **options, log=log)
    write_predictions(named.table, predictions)
    for what, why in {**named.left_out, **named.rejected}.items():
        warn_of(f"left out: {what}, {why}")
    for note in named.notes:
        click.echo(note)
    summary = f"{counted(len(named.table), 'segment')}, {named.table['model'].iloc[0]}"
    click.echo(f"wrote {predictions}: {summary}")
    sys.exit(LEFT_OUT if named.rejected or named.left_out else 0)


@main.command()
@click.argument("checkpoint", type=click.Path())
@click.argument("table", type=click.Path())
@click.argument("store_path", metavar="STORE", type=click.Path())
@options_of(EmbedOptions)
@locks
@writes(Output("store_path", folder=True, mark="store.json", beside=BESIDE_STORE), overwrite="")
def embed(
    checkpoint: str,
    table: str,
    store_path: str,
    *,
    encoder: str | None,
    no_lock: bool,
    **options: Any,
) -> None:
    """Write the tuned encoder's features of TABLE's segments to STORE, for spk-classify.

    CHECKPOINT is one .ckpt file. Exit codes as for spk-extract.
    """
    from ..manifests.table import read_table
    from .prediction import embed as extract_tuned

    with stop_after_batch(log) as caught:
        summary = extract_tuned(
            checkpoint,
            read_table(table),
            store_path,
            options,
            encoder=encoder,
            stop=lambda: bool(caught),
            log=log,
            lock=not no_lock,
        )
    click.echo(str(summary))
    if summary.interrupted:
        sys.exit(128 + caught[0])
    sys.exit(LEFT_OUT if summary.rejected else 0)
