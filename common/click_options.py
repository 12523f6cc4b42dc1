"""Click options made from the fields of a dataclass, and the lines of the docs that tell them.

A setting is declared once, by `options.option_field`: its name, type, choices, unit, help and
default. `options_of` makes the command's options of it, `markdown` the table of the docs. The value
that was typed is checked by the dataclass itself, so that Python and the command line refuse alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, Field, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
SCALARS = {int: "INTEGER", float: "FLOAT"}  # type -> what stands for a value in the help


class Option(click.Option):
    """An option with spellings that work and are not shown, in a group of the help.

    Each spelling may also be typed with underscores, as in the configuration's keys.

    Parameters
    ----------
    aliases : iterable of str
        Other spellings, such as ``--pretrained-model``.
    group : str
        Heading that the option stands under.
    default_text : str
        What the help shows as default, where it isn't the value itself.
    """

    def __init__(
        self,
        *args: Any,
        aliases: Iterable[str] = (),
        group: str = "",
        default_text: str = "",
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.aliases, self.group, self.default_text = tuple(aliases), group, default_text

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Add the option with all its spellings."""
        shown = self.opts, self.secondary_opts
        self.opts = [*_spellings([*self.opts, *self.aliases])]
        if self.secondary_opts:
            denied = [f"--no-{alias.removeprefix('--')}" for alias in self.aliases]
            self.secondary_opts = [*_spellings([*self.secondary_opts, *denied])]
        super().add_to_parser(parser, ctx)
        self.opts, self.secondary_opts = shown


def _spellings(names: Iterable[str]) -> Iterator[str]:
    """Yield each spelling, and the one with underscores where it differs."""
    for name in names:
        yield name
        underscored = f"--{name[2:].replace('-', '_')}"
        if name.startswith("--") and underscored != name:
            yield underscored


def option(*names: str, **attributes: Any) -> Decorator:
    """Return `click.option` for an `Option`; its default is shown where it says something."""
    attributes.setdefault("show_default", attributes.get("default") not in (None, (), False))
    return click.option(*names, cls=Option, **attributes)


def options_of(settings: type, *, defaults: bool = True, leave_out: Iterable[str] = ()) -> Decorator:
    """Return a decorator that adds one option per field of a dataclass, in its order.

    Parameters
    ----------
    settings
        Fields made by `options.option_field`.
    defaults
        Give the command the fields' defaults; without, an option that is not typed is None (or no
        value, where it may be repeated), so that a file decides.
    leave_out
        Fields without an option.
    """
    hints = get_type_hints(settings)
    shown = [known for known in fields(settings) if known.name not in {*leave_out}]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for known in reversed(shown):
            command = _decorator(known, hints[known.name], defaults=defaults)(command)
        return command

    return decorate


def _decorator(known: Field[Any], hint: Any, *, defaults: bool) -> Decorator:
    names = [option_name(known), *known.metadata["short"]]
    if hint is bool:
        names[0] += f"/--no-{names[0].removeprefix('--')}"
    default = _default(known)
    return click.option(
        *names,
        known.name,
        cls=Option,
        default=default if defaults else None,
        multiple=_is_repeated(hint),
        help=f"{help_text(known)}  [{default_text(known)}]",
        aliases=[f"--{name.replace('_', '-')}" for name in known.metadata["aliases"]],
        group=known.metadata["group"],
        **_type(known, hint),
    )


def option_name(known: Field[Any]) -> str:
    """Return how a field's option is typed."""
    return "--" + known.name.replace("_", "-")


def _type(known: Field[Any], hint: Any) -> dict[str, Any]:
    """Return the attributes of an option that tell what may be typed."""
    choices = known.metadata["choices"]
    if hint is bool:
        return {}
    if choices:
        return {"type": click.Choice([*choices, *(["none"] if _may_be_none(hint) else [])])}
    if known.metadata["path"]:
        return {"type": click.Path()}
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    told = known.metadata["metavar"] or (SCALARS.get(kinds[0]) if len(kinds) == 1 else "") or "TEXT"
    return {"type": str, "metavar": told}


def _is_repeated(hint: Any) -> bool:
    return bool(hint == tuple[str, ...])


def _may_be_none(hint: Any) -> bool:
    return NoneType in get_args(hint)


def _default(known: Field[Any]) -> Any:
    return known.default_factory() if known.default_factory is not MISSING else known.default


def help_text(known: Field[Any]) -> str:
    """Return a field's help with its unit."""
    unit, text = known.metadata["unit"], str(known.metadata["help"])
    return f"{text.removesuffix('.')}, in {unit}." if unit else text


def default_text(known: Field[Any]) -> str:
    """Return a field's default in words."""
    default = _default(known)
    if known.metadata["default_text"]:
        return str(known.metadata["default_text"])
    if isinstance(default, bool):
        return "yes" if default else "no"
    if default == ():
        return "all"
    return "none" if default in (None, "") else str(default)


def markdown(settings: type, leave_out: Iterable[str] = ()) -> str:
    """Return the table of the docs for a dataclass of settings, under its groups' headings."""
    hints = get_type_hints(settings)
    lines: list[str] = []
    group = None
    for known in fields(settings):
        if known.name in {*leave_out}:
            continue
        if known.metadata["group"] != group:
            group = known.metadata["group"]
            lines += ["", f"**{group}**", ""] * bool(group)
            lines += ["| option | value | default | |", "|---|---|---|---|"]
        lines.append(_row(known, hints[known.name]))
    return "\n".join(lines).strip() + "\n"


def _row(known: Field[Any], hint: Any) -> str:
    kind = _type(known, hint)
    value = "yes or no" if hint is bool else kind.get("metavar") or "path"
    if known.metadata["choices"]:
        value = ", ".join(f"`{choice}`" for choice in kind["type"].choices)
    cells = (f"`{option_name(known)}`", value, default_text(known), help_text(known))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
