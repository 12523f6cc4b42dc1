"""The command ``spk-finetune``."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Any

import click

from ..common.commands import BUSY, LEFT_OUT, Group, locks, writes
from ..common.outputs import BESIDE_STORE, TABLE, Output
from ..common.signals import stop_after_batch
from .config import Config

SPLITS = ("train", "valid", "test", "all")


@click.group(cls=Group)
@click.version_option(package_name="spk-toolkit")
def main() -> None:
    """Train the encoder itself to tell speakers apart, meeting by meeting; use what was trained."""


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option per field of `Config`; what is not given stays as the file has it."""
    hints = typing.get_type_hints(Config)
    for known in reversed(fields(Config)):
        command = click.option(*_names(known, hints), **_form(known, hints))(command)
    return command


def _names(known: Field[Any], hints: dict[str, Any]) -> tuple[str, ...]:
    option = "--" + known.name.replace("_", "-")
    return (f"{option}/--no-{option[2:]}" if hints[known.name] is bool else option,)


def _form(known: Field[Any], hints: dict[str, Any]) -> dict[str, Any]:
    default = "none" if known.default in (None, "") else known.default
    form: dict[str, Any] = {
        "default": None,
        "help": f"{known.metadata['help']}  [{_said(default)}]",
    }
    hint = hints[known.name]
    kinds = [kind for kind in _kinds(hint) if kind is not types.NoneType]
    if hint == tuple[str, ...]:
        form["multiple"] = True
    elif kinds in ([int], [float]) and hint is kinds[0]:
        form["type"] = kinds[0]
    elif hint is not bool:
        form["metavar"] = "|".join(known.metadata["choices"]) or "TEXT"
    return form


def _kinds(hint: Any) -> list[Any]:
    return list(typing.get_args(hint)) or [hint]


def _said(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "all" if default == () else str(default)


@main.command()
@click.argument("table", required=False, type=click.Path())
@click.option("--config", type=click.Path(), help="YAML file, or a preset: transfer, baseline.")
@_settings
@locks
def fit(table: str | None, config: str | None, *, no_lock: bool, **given: Any) -> None:
    """Fine-tune one model per session of TABLE (a segment table with a split), or one for all.

    Run it again to go on where it stopped. LOG_DIR receives config.yaml, sessions.csv,
    predictions.csv and a folder version_X per session with its checkpoints. Exit code: 0 all done,
    1 something to repair, 3 some segments could not be used or sessions not be trained, 4 another
    process works on some of the sessions, 130 or 143 interrupted.
    """
    from ..common.errors import InputError
    from ..manifests.splits.tasks import split_method
    from ..manifests.table import read_table
    from .config import read_config

    settings = read_config(config, _chosen(given))
    path = table or settings.csv_path
    if path is None:
        raise InputError(
            "TABLE: is not given, and neither is csv_path, expected one; name a segment table"
        )
    from .run import finetune as train

    with stop_after_batch(_tell) as caught:
        done = train(
            read_table(path),
            settings,
            split=split_method(path),
            stop=lambda: bool(caught),
            tell=click.echo,
            lock=not no_lock,
            warn=_tell,
        )
    if done.text:
        click.echo(done.text)
    if done.busy:
        _tell(f"another process works on {len(done.busy)} sessions, first {done.busy[0]!r}")
    if done.interrupted:
        _tell("interrupted; run the same command to go on")
        sys.exit(128 + caught[0])
    sys.exit(BUSY if done.busy else LEFT_OUT if done.left_out else 0)


def _chosen(given: dict[str, Any]) -> dict[str, Any]:
    """Return what was typed; of an option that may be repeated, each part between commas."""
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
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default="test",
    show_default=True,
    help="Rows of TABLE that are named; all for a table without a split.",
)
@click.option("--audio-root", default=".", show_default=True, help="Folder of the recordings.")
@click.option("--encoder", help="Folder or hub id of the encoder, where it has moved.")
@click.option("--channel", help="Index from 0, or mean.  [as in training]")
@click.option(
    "--resample/--no-resample",
    default=None,
    help="Accept recordings of another sample rate.  [as in training]",
)
@click.option("--accelerator", default="auto", show_default=True, help="auto, cpu or gpu.")
@click.option(
    "--batch-seconds", default=40.0, show_default=True, help="Audio in a batch, s, padding counted."
)
@writes(Output("predictions", TABLE))
def predict(checkpoint: str, table: str, predictions: str, **options: Any) -> None:
    """Name the speakers of TABLE's segments; write the predictions table PREDICTIONS.

    CHECKPOINT is a .ckpt file, or the folder of a fleet: each session is named by its own model.
    Exit code: 0 all done, 1 something to repair, 3 some segments or sessions are not named.
    """
    from ..manifests.table import read_table, write_predictions
    from .predict import predict as name_speakers

    named = name_speakers(checkpoint, read_table(table), **options, tell=_tell)
    write_predictions(named.table, predictions)
    for what, why in {**named.left_out, **named.rejected}.items():
        click.echo(f"left out: {what}, {why}")
    for note in named.notes:
        click.echo(note)
    told = f"{len(named.table)} segments, {named.table['model'].iloc[0]}"
    click.echo(f"wrote {predictions}: {told}")
    sys.exit(LEFT_OUT if named.rejected or named.left_out else 0)


@main.command()
@click.argument("checkpoint", type=click.Path())
@click.argument("table", type=click.Path())
@click.argument("store_path", metavar="STORE", type=click.Path())
@click.option("--encoder", help="Folder or hub id of the encoder, where it has moved.")
@click.option("--audio-root", default=".", show_default=True, help="Folder of the recordings.")
@click.option("--layers", default="all", show_default=True, help="all, 0-12, or 4,8.")
@click.option(
    "--pooling",
    type=click.Choice(("mean+std", "mean", "std", "max")),
    default="mean+std",
    show_default=True,
    help="Statistics over a segment's frames.",
)
@click.option("--channel", help="Index from 0, or mean.  [as in training]")
@click.option(
    "--resample/--no-resample",
    default=None,
    help="Accept recordings of another sample rate.  [as in training]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32 or bfloat16.")
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

    CHECKPOINT is one .ckpt file. Exit codes as of spk-extract.
    """
    from ..manifests.table import read_table
    from .predict import embed as extract_tuned

    with stop_after_batch(_tell) as caught:
        summary = extract_tuned(
            checkpoint,
            read_table(table),
            store_path,
            options,
            encoder=encoder,
            stop=lambda: bool(caught),
            tell=_tell,
            lock=not no_lock,
        )
    click.echo(str(summary))
    if summary.interrupted:
        sys.exit(128 + caught[0])
    sys.exit(LEFT_OUT if summary.rejected else 0)


def _tell(line: str) -> None:
    click.echo(line, err=True)
