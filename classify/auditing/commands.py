"""The command ``spk-classify audit``: which turns carry the wrong name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...common.click_options import options_of
from ...common.commands import Command, exit_left_out, writes
from ...common.outputs import Output
from ...common.terminal import show
from .options import AuditOptions

if TYPE_CHECKING:
    from .findings import Audit

TOP = 10  # doubtful turns on the terminal; the files list all
SHOWN = ("rank", "segment_id", "suggested", "probability", "quality", "kind")


@click.command(cls=Command)
@click.argument("table", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@options_of(AuditOptions)
@writes(Output("out", folder=True, mark="audit.json"))
def audit(table: Path, store: Path, out: Path, *, overwrite: bool, **options: Any) -> None:
    """Rank the turns of TABLE by how likely their name is wrong; write to OUT.

    STORE holds the features of TABLE's turns. Each turn is judged by a classifier trained on
    neither it nor turns near it. OUT receives audit.csv (every turn), corrections.csv (what is
    proposed; after you have listened, spk-manifests correct applies it), audit.html to listen by,
    and audit.json. Exit code 3: some turns could not be judged.
    """
    from ...manifests.table import read_table
    from .output import check_audit_folder, write_audit
    from .run import run_audit
    from .wording import facts

    check_audit_folder(out)
    done = run_audit(
        read_table(table), store, AuditOptions(**options), cache=out / "features", log=click.echo
    )
    written = write_audit(done, out, overwrite=overwrite)
    show(*facts(done), *_doubtful(done))
    click.echo(f"wrote {out}: {', '.join(path.name for path in written)}")
    exit_left_out(done.left_out["segment_id"])


def _doubtful(done: Audit) -> list[Any]:
    """Return the most doubtful turns as a table between blank lines; nothing without any."""
    from ..output import number_table

    rows = done.turns[(done.turns["kind"] != "") | done.turns["issue"]].head(TOP)
    return ["", number_table(rows[list(SHOWN)]), ""] if len(rows) else []
