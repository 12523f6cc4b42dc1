"""The commands ``spk-classify curve``, ``open-set`` and ``report``: analyses of finished runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.click_options import option, options_of
from ..common.commands import Command, exit_left_out, locks, writes
from ..common.counts import counted
from ..common.outputs import Output
from ..common.terminal import show
from .options import CurveOptions, OpenSetOptions, ReportOptions

if TYPE_CHECKING:
    import pandas as pd


def _of_a_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments TABLE, STORE and RUN."""
    for name in ("run", "store", "table"):
        command = click.argument(name, type=click.Path(path_type=Path))(command)
    return command


@click.command(cls=Command)
@_of_a_run
@options_of(CurveOptions)
@locks
@writes(Output("run", inside="learning.csv"))
def curve(table: Path, store: Path, run: Path, **options: Any) -> None:
    """Train RUN's choice on more and more speech per speaker. Writes RUN/learning.csv."""
    from .evaluation.learning_curve import conclude_curve, learning_curve

    _add(learning_curve, conclude_curve, "learning.csv", table, store, run, **options)


@click.command("open-set", cls=Command)
@_of_a_run
@options_of(OpenSetOptions)
@locks
@writes(Output("run", inside="openset.csv"))
def open_set(table: Path, store: Path, run: Path, **options: Any) -> None:
    """Leave each speaker out in turn: how often is a stranger accepted? Writes RUN/openset.csv."""
    from .evaluation.open_set import conclude_open_set
    from .evaluation.open_set import open_set as leave_out

    _add(leave_out, conclude_open_set, "openset.csv", table, store, run, **options)


def _add(
    analyse: Callable[..., Any],
    conclude: Callable[[pd.DataFrame], str],
    name: str,
    table: Path,
    store: Path,
    run: Path,
    no_lock: bool,
    **options: Any,
) -> None:
    """Write an analysis to the run's folder; print its model, the table, the conclusion.

    The folder is locked meanwhile, and left alone if it is not a sweep's.
    """
    from ..common.locks import folder_lock
    from ..manifests.table import read_table
    from .evaluation.sweep_choice import model_name, read_config
    from .output import number_table, write_frame
    from .selection.run_inputs import run_mark

    rows, config, lines = read_table(table), read_config(run), list[str]()
    with folder_lock(run, lock=not no_lock):
        result = analyse(rows, store, run, log=lines.append, **options)
        write_frame(result.assign(run=run_mark(run, config)), run / name)
    show(*lines, model_name(run), "", number_table(result), "", conclude(result))
    click.echo(f"wrote {run / name}")
    exit_left_out(line.startswith("left out") for line in lines)


@click.command(cls=Command)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path())
@option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default="report.html",
    show_default=True,
    help="The page.",
)
@options_of(ReportOptions)
@writes(Output("output", (".html", ".htm")))
def report(runs: tuple[str, ...], output: Path, **options: Any) -> None:
    """Show RUNs side by side on one page, which needs no network.

    A RUN is a folder that `sweep` wrote, or a predictions table (of `predict` or of fine-tuning);
    NAME=PATH gives it another name.
    """
    from ..common.files import atomic_write
    from .report.page import report as page
    from .report.tables import NOT_PAIRED

    lines = list[str]()
    content = page(runs, log=lines.append, **options).encode()
    atomic_write(output, content)
    for line in lines:
        click.echo(line)
    click.echo(f"wrote {output}: {counted(len(runs), 'run')}, {len(content) / 1e6:.1f} MB")
    exit_left_out(line.endswith(NOT_PAIRED) for line in lines)
