"""The commands ``spk-manifests demo`` and ``sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...common.click_options import options_of
from ...common.commands import Command, writes
from ...common.counts import counted
from ...common.outputs import Output, protecting
from ..options import DemoOptions


@click.command(cls=Command)
@click.argument("out", type=click.Path())
@options_of(DemoOptions)
@writes(Output("out", folder=True))
def demo(out: str, overwrite: bool, **options: Any) -> None:
    """Write a synthetic AISHELL-4-shaped corpus to the folder OUT: same seed, same bytes."""
    from .corpus import demo as write_corpus

    with protecting([] if overwrite else [Path(out)]):
        names = write_corpus(out, **options)
    click.echo(f"{out}: {counted(len(names), 'session')}, {names[0]} to {names[-1]}")


@click.command(cls=Command)
@click.argument("out", type=click.Path())
@writes(Output("out", folder=True))
def sample(out: str, overwrite: bool) -> None:
    """Write a meeting of real voices, under two minutes, to the folder OUT.

    OUT receives the recording (wav), who speaks when (TextGrid), clips of six of the seven people
    from the first half (clips), and the second half as a diarizer gives it (meeting.json), with the
    true names beside it (truth.rttm).
    """
    from .sample_meeting import write_sample

    with protecting([] if overwrite else [Path(out)]):
        recording, turns, licence, clips, meeting, truth = write_sample(out)
    click.echo(f"{recording}, {turns}: seven readers of LibriSpeech, CC BY 4.0 ({licence})")
    click.echo(
        f"{clips}, {meeting}: known voices, and a meeting to name (spk name); {truth}: who it is"
    )
