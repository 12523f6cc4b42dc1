"""The commands ``spk-classify curve`` and ``open-set``: more about what a sweep chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

SEED = click.IntRange(0, 2**32 - 1)  # what scikit-learn takes


@click.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--seconds",
    default="1,2,5,10,30,60",
    show_default=True,
    help="Speech learnt per speaker; whole segments, until so many s are reached.",
)
@click.option("--draws", default=5, show_default=True, help="The first in time, others random.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of draws and bootstrap.")
def curve(table: Path, store: Path, run: Path, **options: Any) -> None:
    """Learn from ever more speech per speaker what RUN chose. Writes RUN/learning.csv."""
    from ..manifests.table import read_table
    from .learning import learning_curve
    from .show import frame_text, write_frame

    found = learning_curve(read_table(table), store, run, **options)
    write_frame(found, run / "learning.csv")
    click.echo(frame_text(found))
    click.echo(f"wrote {run / 'learning.csv'}: {len(found)} lengths of enrolment")


@click.command("open-set")
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--false-accepts",
    default="0.01,0.05,0.1",
    show_default=True,
    help="Shares of strangers that the threshold may let in on validation.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the bootstrap.")
def open_set(table: Path, store: Path, run: Path, **options: Any) -> None:
    """Leave each speaker out in turn: how often is a stranger let in? Writes RUN/openset.csv."""
    from ..manifests.table import read_table
    from .openset import open_set as leave_out
    from .show import frame_text, write_frame

    found = leave_out(read_table(table), store, run, **options)
    write_frame(found, run / "openset.csv")
    click.echo(frame_text(found))
    click.echo(f"wrote {run / 'openset.csv'}: thresholds from validation, shares on test")
