"""The command ``spk`` (and ``python -m spk``): one door to the six commands, and `spk info`."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import click

from .common.commands import Group, version_option

# name -> module, its command, and the first line of that one's help: `spk --help` imports none.
COMMANDS = {
    "manifests": (
        "manifests.cli",
        "main",
        "Turn meetings (audio, and who speaks when) into a table of segments.",
    ),
    "extract": (
        "extract.cli",
        "main",
        "Write the encoder's features of every segment in TABLE to the cache STORE, a folder.",
    ),
    "store": (
        "extract.store.cli",
        "store",
        "Inspect, verify, merge, pack and export feature stores; import other encoders' vectors.",
    ),
    "classify": (
        "classify.cli",
        "main",
        "Tell who speaks in each segment, from cached features: try, fit, predict, score.",
    ),
    "name": (
        "classify.naming.cli",
        "main",
        "Put names on the speakers of a diarized meeting, from voices that you enrol.",
    ),
    "finetune": (
        "finetune.cli",
        "main",
        "Train the encoder itself to tell speakers apart, meeting by meeting; use the result.",
    ),
    "info": (
        "info",
        "info",
        "Show what a bug report needs: versions, devices, encoder cache, locks.",
    ),
}


class _LazyGroup(Group):
    """A group that imports a command only to run it, so that `spk --help` answers at once."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        names = dict.fromkeys(COMMANDS)  # by which click suggests what was meant
        self.commands = cast("dict[str, click.Command]", names)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the data."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now, or None where there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f".{module}", __package__), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"auto_envvar_prefix": "SPK"})
@version_option
def main() -> None:
    """Tell who speaks in each segment of a meeting.

    The six commands under one name: `spk extract` is `spk-extract`, and so on. `spk info` shows
    what a bug report needs.
    """


if __name__ == "__main__":
    main(prog_name="spk")
