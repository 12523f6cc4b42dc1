"""The command ``spk-extract``."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from ..common.click_options import option, options_of
from ..common.commands import LEFT_OUT, Command, locks, version_option, writes
from ..common.engine.options import stopping_line
from ..common.log import log
from ..common.next_steps import know
from ..common.outputs import BESIDE_STORE, Output
from ..common.signals import stop_after_batch
from .options import RUNNING, ExtractOptions

# First bytes of the two files of --profile.
PROFILE, TRACE = b"segments: ", b'{"traceEvents": '
# oneDNN, torch's CPU backend, caches what it builds for the last 1024 shapes, and here every batch
# has another shape: without a limit the cache takes most of the memory of a long run.
KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}


@click.command(cls=Command, context_settings={"auto_envvar_prefix": "SPK_EXTRACT"})
@version_option
@click.argument("table", type=click.Path())
@click.argument("store_path", metavar="STORE", type=click.Path())
@options_of(ExtractOptions)
@option(
    "--plan",
    is_flag=True,
    group=RUNNING,
    help="Show segments, hours and cache size; do nothing else.",
)
@locks
@writes(
    Output("store_path", folder=True, mark="store.json", beside=BESIDE_STORE),
    Output("profile", form=PROFILE, beside={".trace.json": TRACE}),
    overwrite="Replace the FILE of --profile. STORE is never restarted: for other features name "
    "another, or remove it.",
)
def main(table: str, store_path: str, *, plan: bool, no_lock: bool, **options: Any) -> None:
    """Write the encoder's features of every segment in TABLE to the cache STORE, a folder.

    Run it again to resume where it stopped. Exit code: 0 all done, 1 something to repair, 3 some
    segments were rejected (listed in STORE.rejected.csv) or failed, 130 or 143 interrupted.
    """
    from ..manifests.table import read_table

    segments, settings = read_table(table), ExtractOptions(**options)
    if plan:
        from .planning import plan as plan_run

        planned = plan_run(segments, settings)
        click.echo(str(planned))
        know(encoder_away=planned.size is None, audio_away=bool(planned.absent))
        return
    os.environ.update(KERNELS | os.environ)
    from .run import run_extraction

    with stop_after_batch(log, stopping_line(settings.engine)) as caught:
        summary = run_extraction(
            segments,
            store_path,
            settings,
            stop=lambda: bool(caught),
            log=log,
            lock=not no_lock,
        )
    click.echo(str(summary))
    if summary.interrupted:
        log("interrupted; run the same command to resume")
        sys.exit(128 + caught[0])
    know(unfinished=bool(summary.failed))
    sys.exit(LEFT_OUT if summary.rejected or summary.failed else 0)
