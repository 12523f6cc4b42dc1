"""The command ``spk info``: what a bug report needs, for people and for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from . import __version__
from .common.click_options import option
from .common.commands import Command


@click.command(cls=Command)
@click.argument("folder", type=click.Path(), default=".")
@option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(folder: str, *, as_json: bool) -> None:
    """Show what a bug report needs: versions, devices, encoder cache, locks.

    FOLDER is where the command in question writes: can it be locked, how much space is left? Takes
    some seconds if torch is installed, to list its devices. Shows no passwords or tokens; the home
    folder is shown as ~.
    """
    facts = collect(folder)
    click.echo(json.dumps(facts, indent=1, ensure_ascii=False) if as_json else facts_text(facts))


def collect(folder: str | Path) -> dict[str, dict[str, str]]:
    """Return all facts, by section.

    Raises
    ------
    InputError
        There is no such folder.
    """
    from .common import environment

    sections = {
        "folder": environment.folder_facts(folder),
        "spk": {"version": __version__, "code": str(Path(__file__).parent), **environment.system()},
        "packages": environment.packages(),
        "extras": environment.extras(),
        "devices": environment.devices(),
        "encoder cache": encoder_cache(),
        "variables": environment.variables(os.environ),
    }
    sections["folder"] = sections.pop("folder")  # refused first, told last
    facts: dict[str, dict[str, str]] = environment.without_home(sections, str(Path.home()))
    return facts


def encoder_cache() -> dict[str, str]:
    """Return where encoders of the hub are kept, and whether the default one is among them."""
    from .extract.encoder.checkpoint import BUILT_IN, in_hub_cache
    from .extract.options import DEFAULT_ENCODER

    shipped = dict.fromkeys(BUILT_IN, "ships with spk")
    try:
        from huggingface_hub import constants
    except ImportError:
        return {"hub": "huggingface_hub is not installed", **shipped}
    return {
        "hub": str(constants.HF_HUB_CACHE),
        "offline": "yes" if constants.HF_HUB_OFFLINE else "no",
        DEFAULT_ENCODER: "is there" if in_hub_cache(DEFAULT_ENCODER) else "is not there",
        **shipped,
    }


def facts_text(facts: dict[str, Any]) -> str:
    """Return the facts as lines, each section under its name."""
    lines = []
    for section, values in facts.items():
        lines.append(f"{section}:")
        lines += [f"  {name}: {value}" for name, value in values.items()] or ["  none"]
    return "\n".join(lines)
