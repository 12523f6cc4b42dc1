"""The command ``spk-store``: look at, prove, merge, pack and export caches of features."""

from __future__ import annotations

import click

from ..common.commands import Group


@click.group(cls=Group)
@click.version_option(package_name="spk-toolkit")
def store() -> None:
    """Look at, prove, merge, pack and export the caches of features that spk-extract makes."""


@store.command("info")
@click.argument("path", metavar="STORE")
def info_(path: str) -> None:
    """Tell segments, layers, size, configuration and rejected segments of STORE."""
    from .tools import info

    found = info(path)
    found["hours"] = f"{found['hours']:.2f}"
    for key in ("configuration", "versions", "rejected"):
        found[key] = (
            "".join(f"\n  {name}: {value}" for name, value in found[key].items()) or " none"
        )
    for key, value in found.items():
        click.echo(f"{key}:{value}" if str(value).startswith(("\n", " ")) else f"{key}: {value}")


@store.command("verify")
@click.argument("path", metavar="STORE")
@click.option("--table", help="Segment table STORE was made of (.csv or .parquet); with --audio.")
@click.option("--audio", help="Folder of the table's audio: also compare the decoded samples.")
def verify_(path: str, table: str | None, audio: str | None) -> None:
    """Read every byte of STORE and list what is wrong; exit code 1 if anything is."""
    from ..common.errors import InputError
    from ..manifests.table import read_table
    from .tools import verify

    faults = verify(path, table=read_table(table) if table else None, audio=audio)
    for fault in faults:
        click.echo(fault)
    if faults:
        raise InputError(
            f"{path}: {len(faults)} faults, expected none; delete the files named and extract again"
        )
    click.echo(f"{path}: every byte is as it was written")


@store.command("merge")
@click.argument("paths", metavar="STORES...", nargs=-1, required=True)
@click.argument("out")
def merge_(paths: tuple[str, ...], out: str) -> None:
    """Copy the rows of STORES, folders or packed files of one configuration, into folder OUT.

    OUT is new, or a store that a merge has made or is to grow.
    """
    from .listing import rejected_listing
    from .reader import FeatureStore
    from .tools import merge

    told = f"{out}: {merge(paths, out)} segments of {len(paths)} stores"
    if rejected := len(FeatureStore.open(out).rejected()):
        told += f"; {rejected} rejected, see {rejected_listing(out)}"
    click.echo(told)


@store.command("pack")
@click.argument("path", metavar="STORE")
@click.argument("out")
def pack_(path: str, out: str) -> None:
    """Write STORE as the one HDF5 file OUT, layer by layer, for sharing."""
    from .export import pack

    click.echo(f"{out}: {pack(path, out)} bytes")


@store.command("export")
@click.argument("path", metavar="STORE")
@click.argument("out")
def export_(path: str, out: str) -> None:
    """Write STORE for other programs to OUT: .npz, or .parquet for pooled features."""
    from .export import export

    click.echo(f"{out}: {export(path, out)} segments")
