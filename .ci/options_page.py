"""Print docs/options.md: every option of every command, from the commands themselves.

.venv/bin/python .ci/options_page.py > docs/options.md
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import click

from spk.__main__ import main

HEAD = """\
# Every option of every command

Printed by `python .ci/options_page.py`; a test compares it with the commands. Each command also has
`-h`, `-q`, `-v`, and those that write have `--overwrite`, which is told in their `--help`.

An option may be typed with underscores (`--audio_root`), and given by the environment: the variable
is `SPK_`, the command, the option, in capitals, with `_` for `-` and blanks, such as
`SPK_EXTRACT_AUDIO_ROOT`, `SPK_CLASSIFY_SWEEP_JOBS` or `SPK_FINETUNE_FIT_ENCODER`. What is typed
counts more than the environment, and that more than a file of settings. `--overwrite` is typed each
time. `yes or no` is `--option` or `--no-option`; in the environment 1 or 0.

One word means one thing in each command: `--encoder`, `--audio-root`, `--device`, `--dtype`,
`--layers`, `--seed` (0), `--output`; `--jobs` counts what runs side by side (0: one per core),
`--workers` what reads audio ahead (0: nothing). Earlier spellings still work and are not shown:
`--pretrained-model`, `--precision`, `--num-workers`, `--accelerator` of `spk-finetune predict`,
`--pcm-dir` and `--workers` of `spk-manifests cut`, `--out`, `--audio`; and so do options that no
longer change anything: `--calibration temperature`, and of `spk-finetune fit` `--checkpoint-mode`
(`--checkpoint-monitor` says it), `--sample-rate` (the encoder's) and `--log-every-n-steps`.

The shell completes commands, options, choices and file names once it is told to; for bash, in
`~/.bashrc` (zsh: `zsh_source` in `~/.zshrc`; fish: see click's page on shell completion):

    eval "$(_SPK_COMPLETE=bash_source spk)"
    eval "$(_SPK_EXTRACT_COMPLETE=bash_source spk-extract)"

and so on for the commands that you type: `_SPK_MANIFESTS_COMPLETE`, `_SPK_STORE_COMPLETE`,
`_SPK_CLASSIFY_COMPLETE`, `_SPK_NAME_COMPLETE`, `_SPK_FINETUNE_COMPLETE`.
"""
OF_ALL = {"help", "version", "quiet", "verbose", "overwrite", "_click_default_help"}


def commands(
    command: click.Command, name: str, ctx: click.Context | None = None
) -> Iterator[tuple[str, click.Command]]:
    """Yield each command that runs, with what is typed for it."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command, ctx, name)
    for word in command.list_commands(context):
        inner = command.get_command(context, word)
        if inner is not None:
            dash = " " if ctx is not None or word == "info" else "-"  # `info` has no program
            yield from commands(inner, f"{name}{dash}{word}", context)


def section(name: str, command: click.Command) -> Iterator[str]:
    """Yield the lines of a command: what it does, its arguments, its options by group."""
    context = click.Context(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"\n## {name}\n\n`{name} {usage}`: {first_line(command)}"
    groups: dict[str, list[str]] = {}
    for param in command.params:
        if isinstance(param, click.Option) and param.name not in OF_ALL and not param.hidden:
            groups.setdefault(getattr(param, "group", ""), []).append(row(param, context))
    others = groups.pop("", [])
    for heading, rows in [*groups.items(), ("Other" if groups else "", others)]:
        if rows:
            yield f"\n**{heading}**\n" if heading else ""
            yield "| option | value | default | |\n|---|---|---|---|"
            yield from rows


def first_line(command: click.Command) -> str:
    """Return the first sentence of a command's help."""
    return inspect.cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ")


def row(param: click.Option, context: click.Context) -> str:
    """Return an option's line of the table."""
    names = ", ".join(f"`{name}`" for name in param.opts)
    text, _, default = (param.help or "").rpartition("  [")
    if not text:
        text, default = param.help or "", shown(param)
    cells = (names, value_of(param, context), default.rstrip("]"), text)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def value_of(param: click.Option, context: click.Context) -> str:
    """Return what may be typed as an option's value."""
    if param.is_flag:
        return "yes or no" if param.secondary_opts else ""
    if isinstance(param.type, click.Choice):
        return ", ".join(f"`{choice}`" for choice in param.type.choices)
    return param.make_metavar(context)


def shown(param: click.Option) -> str:
    """Return the default of an option that was declared by hand."""
    worth_showing = isinstance(param.default, (str, int, float)) and not param.is_flag
    return str(param.default) if worth_showing else ""


def content() -> str:
    """Return the page."""
    sections = ("\n".join(section(name, command)) for name, command in commands(main, "spk"))
    return "".join([HEAD, *(f"{text}\n" for text in sections)])


if __name__ == "__main__":
    sys.stdout.write(content())
