"""Click options made from the fields of a dataclass.

A setting is declared once, by `options.option_field`: its name, type, choices, unit, help and
default. `options_of` turns it into the command's option, from which the site's reference is made.
The dataclass itself checks the typed value, so that Python and the command line refuse the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field, fields
from functools import wraps
from types import NoneType
from typing import Any, get_args, get_type_hints

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
SCALARS = {int: "INTEGER", float: "FLOAT"}  # type -> placeholder for a value in the help
UNITS = {"s": "SECONDS", "Hz": "HZ", "dB": "DB"}


class Option(click.Option):
    """An option with a heading in the help, and with extra spellings that the help does not show.

    Each spelling may also be typed with underscores, as in the configuration's keys.

    Parameters
    ----------
    aliases : iterable of str
        Other spellings, such as ``--pretrained-model``.
    group : str
        Heading of the option in the help.
    """

    def __init__(
        self, *args: Any, aliases: Iterable[str] = (), group: str = "", **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self.aliases, self.group = tuple(aliases), group

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
    """Yield each spelling, and its form with underscores if that differs."""
    for name in names:
        yield name
        underscored = f"--{name[2:].replace('-', '_')}"
        if name.startswith("--") and underscored != name:
            yield underscored


def option(*names: str, **attributes: Any) -> Decorator:
    """Return `click.option` for an `Option`; its default is shown if it is informative."""
    attributes.setdefault("show_default", attributes.get("default") not in (None, (), False))
    return click.option(*names, cls=Option, **attributes)


def options_of(
    settings: type, *, defaults: bool = True, leave_out: Iterable[str] = ()
) -> Decorator:
    """Return a decorator that adds one option per field of a dataclass, in its order.

    The body receives the values as the dataclass has them: checked and converted to each type.

    Parameters
    ----------
    settings
        Fields made by `options.option_field`.
    defaults
        Give the command the fields' defaults. Without this, an option that is not typed is None (or
        empty, if it may be repeated), so that a file can decide, and nothing is checked here.
    leave_out
        Fields without an option.
    """
    hints = get_type_hints(settings)
    shown = [setting for setting in fields(settings) if setting.name not in {*leave_out}]

    def decorate(body: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(body)
        def checked(*args: Any, **values: Any) -> Any:
            typed = {setting.name: values[setting.name] for setting in shown}
            return body(*args, **{**values, **vars(settings(**typed))})

        command = checked if defaults else body
        for setting in reversed(shown):
            command = _decorator(setting, hints[setting.name], defaults=defaults)(command)
        return command

    return decorate


def _decorator(setting: Field[Any], hint: Any, *, defaults: bool) -> Decorator:
    names = [option_name(setting), *setting.metadata["short"]]
    if _is_switch(hint) and not (defaults and setting.default is False):
        names[0] += f"/--no-{names[0].removeprefix('--')}"
    default = default_text(setting, none=not defaults)
    return click.option(
        *names,
        setting.name,
        cls=Option,
        default=setting.default if defaults else None,
        multiple=_is_repeated(hint),
        help=setting.metadata["help"] + (f"  [{default}]" if default else ""),
        aliases=[f"--{name.replace('_', '-')}" for name in setting.metadata["aliases"]],
        group=setting.metadata["group"],
        hidden=setting.metadata["hidden"],
        **_type(setting, hint, none=not defaults),
    )


def option_name(setting: Field[Any]) -> str:
    """Return a field's option as it is typed."""
    return "--" + setting.name.replace("_", "-")


def _type(setting: Field[Any], hint: Any, *, none: bool) -> dict[str, Any]:
    """Return the attributes of an option's type; `none` if None has a meaning of its own."""
    choices = setting.metadata["choices"]
    if _is_switch(hint):
        return {"is_flag": True}
    if choices:
        nothing = ["none"] if none and NoneType in get_args(hint) else []
        return {"type": click.Choice([*choices, *nothing])}
    if setting.metadata["path"]:
        return {"type": click.Path()}
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    value = SCALARS.get(kinds[0], "TEXT") if len(kinds) == 1 else "TEXT"
    unit = UNITS.get(setting.metadata["unit"], "")
    return {"type": click.UNPROCESSED, "metavar": setting.metadata["metavar"] or unit or value}


def _is_repeated(hint: Any) -> bool:
    return bool(hint == tuple[str, ...])


def _is_switch(hint: Any) -> bool:
    """Return whether a setting is a boolean or None, and never text."""
    kinds = get_args(hint) or (hint,)
    return bool in kinds and str not in kinds


def default_text(setting: Field[Any], *, none: bool = True) -> str:
    """Return a field's default in words; "" if it is obvious, unless with `none`."""
    default = setting.default
    if setting.metadata["default_text"]:
        return str(setting.metadata["default_text"])
    if default is False:
        return "no" if none else ""
    if default is None or default == "":
        return "none" if none else ""
    return "yes" if default is True else "all" if default == () else str(default)
