"""The command ``spk-extract``."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from ..common.commands import LEFT_OUT, Command, locks, writes
from ..common.outputs import BESIDE_STORE, Output
from ..common.signals import stop_after_batch

# How the two files of --profile begin.
PROFILE, TRACE = b"segments: ", b'{"traceEvents": '
# oneDNN, in which torch computes on a CPU, keeps what it made for the last 1024 shapes, and here
# each batch has another shape: without a bound that is most of the memory of a long run.
KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}


@click.command(cls=Command)
@click.version_option(package_name="spk-toolkit")
@click.argument("table", type=click.Path())
@click.argument("store_path", metavar="STORE", type=click.Path())
@click.option(
    "--audio-root",
    default=".",
    show_default=True,
    type=click.Path(),
    help="Folder that the table's relative paths start from.",
)
@click.option(
    "--encoder",
    default="jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn",
    show_default=True,
    help="Hub id, local folder, or demo (tiny, untrained).",
)
@click.option("--revision", default=None, help="Branch, tag or commit of a hub id.")
@click.option(
    "--normalize",
    type=click.Choice(("yes", "no")),
    default=None,
    help="Whether each waveform gets zero mean and unit variance, where the encoder's files do not "
    "say it, or say it wrongly.  [default: as they say]",
)
@click.option("--layers", default="all", show_default=True, help="all, 0-12, or 4,8.")
@click.option(
    "--pooling",
    type=click.Choice(("mean+std", "mean", "std", "max")),
    default="mean+std",
    show_default=True,
    help="Statistics over a segment's frames.",
)
@click.option("--frames", is_flag=True, help="Store every frame instead of pooled features.")
@click.option(
    "--channel", default="0", show_default=True, help="Index from 0, or mean (equal average)."
)
@click.option("--resample", is_flag=True, help="Accept recordings of another sample rate.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda or cuda:i; cuda:all or a list, cuda:0,cuda:1: a process each, one store.",
)
@click.option(
    "--dtype",
    type=click.Choice(("auto", "float32", "bfloat16", "float16")),
    default="auto",
    show_default=True,
    help="Number format to compute in; auto: bfloat16 on a GPU that has it, float32 on a CPU.",
)
@click.option(
    "--store-dtype",
    type=click.Choice(("float16", "float32")),
    default="float16",
    show_default=True,
    help="Number format to store.",
)
@click.option(
    "--batch-seconds",
    type=float,
    default=None,
    help="Audio in a batch, in s, padding counted.  [default: 20 on a CPU; on a GPU what its free "
    "memory holds, at most 480]",
)
@click.option(
    "--buckets", is_flag=True, help="Batch only segments of equally many frames: no padding."
)
@click.option(
    "--workers",
    type=int,
    default=None,
    help="Threads that decode audio ahead, for each device; 0: none.  [default: the cores at hand, "
    "shared by the devices, at most 16]",
)
@click.option(
    "--max-seconds",
    type=float,
    default=40.0,
    show_default=True,
    help="Longer segments, in s, are encoded in windows whose statistics add up.",
)
@click.option(
    "--shard",
    default="1/1",
    show_default=True,
    help="Part i of n, i from 1 to n; write each to a store of its own, then spk-store merge.",
)
@click.option(
    "--verify",
    type=int,
    default=0,
    show_default=True,
    help="First encode so many random segments alone in float32 and in batches, and tell the "
    "difference; of another --dtype also layer by layer.",
)
@click.option(
    "--profile",
    type=click.Path(dir_okay=False),
    default=None,
    help="File to write where the time went to, as text; beside it FILE.trace.json for Chrome.",
)
@click.option("--strict", is_flag=True, help="Stop at the first segment that is rejected.")
@click.option("--retry-rejected", is_flag=True, help="Try rejected segments again.")
@click.option("--plan", is_flag=True, help="Tell segments, hours and cache size; do nothing.")
@locks
@writes(
    Output("store_path", folder=True, mark="store.json", beside=BESIDE_STORE),
    Output("profile", form=PROFILE, beside={".trace.json": TRACE}),
    overwrite="Replace the FILE of --profile. STORE is never begun anew: for other features name "
    "another, or remove it.",
)
def main(table: str, store_path: str, *, plan: bool, no_lock: bool, **options: Any) -> None:
    """Write the encoder's features of every segment in TABLE to the cache STORE, a folder.

    Run it again to go on where it stopped. Exit code: 0 all done, 1 something to repair, 3 some
    segments were rejected (listed in STORE.rejected.csv), 130 or 143 interrupted.
    """
    from ..manifests.table import read_table
    from .options import ExtractOptions

    segments, settings = read_table(table), ExtractOptions(**options)
    if plan:
        from .planning import plan as plan_run

        click.echo(str(plan_run(segments, settings)))
        return
    os.environ.update(KERNELS | os.environ)
    from .run import extract

    with stop_after_batch(_tell) as caught:
        summary = extract(
            segments,
            store_path,
            settings,
            stop=lambda: bool(caught),
            tell=_tell,
            lock=not no_lock,
        )
    click.echo(str(summary))
    if summary.interrupted:
        click.echo("interrupted; run the same command to go on", err=True)
        sys.exit(128 + caught[0])
    sys.exit(LEFT_OUT if summary.rejected else 0)


def _tell(line: str) -> None:
    click.echo(line, err=True)
