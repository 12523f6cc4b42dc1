"""The commands ``spk-classify curve`` and ``open-set``: more about what a sweep chose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.commands import exit_left_out, locks, writes
from ..common.outputs import Output

if TYPE_CHECKING:
    import pandas as pd

SEED = click.IntRange(0, 2**32 - 1)  # what scikit-learn takes


def _of_a_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments TABLE, STORE and RUN."""
    for name in ("run", "store", "table"):
        command = click.argument(name, type=click.Path(path_type=Path))(command)
    return command


@click.command()
@_of_a_run
@click.option(
    "--seconds",
    default="1,2,5,10,30,60",
    show_default=True,
    help="Speech learnt per speaker; whole segments, until so many s are reached.",
)
@click.option("--draws", default=5, show_default=True, help="The first in time, others random.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of draws and bootstrap.")
@locks
@writes(Output("run", inside="learning.csv"))
def curve(table: Path, store: Path, run: Path, **options: Any) -> None:
    """Learn from ever more speech per speaker what RUN chose. Writes RUN/learning.csv."""
    from .learning import conclude_curve, learning_curve

    _add(learning_curve, conclude_curve, "learning.csv", table, store, run, **options)


@click.command("open-set")
@_of_a_run
@click.option(
    "--false-accepts",
    default="0.01,0.05,0.1",
    show_default=True,
    help="Shares of strangers that the threshold may let in on validation.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the bootstrap.")
@locks
@writes(Output("run", inside="openset.csv"))
def open_set(table: Path, store: Path, run: Path, **options: Any) -> None:
    """Leave each speaker out in turn: how often is a stranger let in? Writes RUN/openset.csv."""
    from .openset import conclude_open_set
    from .openset import open_set as leave_out

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
    """Write an analysis to the run's folder; print which model it is of, the table, the conclusion.

    Nobody else writes to the folder meanwhile, and a folder that is no sweep's is left alone.
    """
    from ..common.locks import folder_lock
    from ..manifests.table import read_table
    from .chosen import name_of, read_config
    from .inputs import run_mark
    from .show import frame_text, write_frame

    rows, config, lines = read_table(table), read_config(run), list[str]()
    with folder_lock(run, lock=not no_lock):
        found = analyse(rows, store, run, log=lines.append, **options)
        write_frame(found.assign(run=run_mark(run, config)), run / name)
    head = "\n".join([*lines, name_of(run)])
    click.echo(f"{head}\n\n{frame_text(found)}\n\n{conclude(found)}\nwrote {run / name}")
    exit_left_out(line.startswith("left out") for line in lines)
