"""The command ``spk-classify link``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...common.click_options import option, options_of
from ...common.commands import Command, exit_left_out, writes
from ...common.outputs import Output
from ..options import LinkOptions


@click.command(cls=Command)
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@option(
    "--identity",
    type=click.Path(path_type=Path),
    help="CSV session,speaker,person of known people; they keep their names, and scores are "
    "calibrated on them.",
)
@options_of(LinkOptions)
@writes(Output("out", folder=True, mark="link.json"))
def link(
    table: Path,
    store: Path,
    out: Path,
    *,
    identity: Path | None,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Find which labels of different sessions are one person, and write who is who to OUT.

    TABLE is a segment table of several sessions, STORE its features. OUT receives people.csv, which
    --identity reads, except unsure labels (unsure.csv); links.csv, every pair with its probability;
    series.csv, ids that are not one person in all sessions of a series; and link.json. Two labels
    of one session are never one person. If the encoder cannot tell people apart, nobody is linked,
    and the output says so. Exit code 3: some labels are left out as unsure.
    """
    from ...common.log import log
    from .output import series_lines, summary, write_links
    from .people import link_labels

    links = link_labels(table, store, identity=identity, **settings)
    written = write_links(links, out, overwrite=overwrite)
    for line in series_lines(links):
        log(line)
    click.echo("\n".join(summary(links)))
    click.echo(f"wrote {out}: {', '.join(path.name for path in written)}")
    exit_left_out(links.unsure["reason"])
