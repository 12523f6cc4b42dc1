"""The command ``spk-classify report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..common.commands import exit_left_out, writes
from ..common.outputs import Output


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path())
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default="report.html",
    show_default=True,
    help="The page.",
)
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="Segment table: adds durations, overlaps, the split and its leaks.",
)
@click.option(
    "--audio-root",
    type=click.Path(path_type=Path),
    help="Folder of the recordings: adds clips of the errors; needs --table.",
)
@click.option(
    "--errors",
    default=20,
    show_default=True,
    help="Most confident mistakes that are shown of each run.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "valid", "test", "all"]),
    default="test",
    show_default=True,
    help="Rows that are reported.",
)
@click.option(
    "--title", default="Who speaks in the meeting", show_default=True, help="Of the page."
)
@writes(Output("output", (".html", ".htm")))
def report(runs: tuple[str, ...], output: Path, **options: Any) -> None:
    """Show RUNs side by side on one page, which needs no network.

    A RUN is a folder that `sweep` wrote, or a predictions table (of `predict` or of fine-tuning);
    NAME=PATH gives it another name than its own.
    """
    from ..common.files import write_whole
    from .report import report as page
    from .tables import NOT_PAIRED

    lines = list[str]()
    content = page(runs, tell=lines.append, **options).encode()
    write_whole(output, content)
    for line in lines:
        click.echo(line)
    click.echo(f"wrote {output}: {len(runs)} runs, {len(content) / 1e6:.1f} MB")
    exit_left_out(line.endswith(NOT_PAIRED) for line in lines)
