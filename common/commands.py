"""Click base classes of all commands: help, logging to stderr, one-line errors, exit codes.

Each command has ``-h``, ``-q`` and ``-v``, reads ``SPK_<COMMAND>_<OPTION>`` from the environment
(click's ``auto_envvar_prefix``), and accepts each option spelled with underscores too.
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import click

from .click_options import Option, option
from .errors import InputError
from .extras import DISTRIBUTION, explain_missing_module
from .log import debug, logging_to_stderr, warn
from .next_steps import tell_next
from .outputs import Output, check_place, protecting
from .signals import exit_on_signals
from .terminal import problem_text

try:
    from .locks import UNLOCKED
except ImportError as problem:  # an unsupported system is reported in one line
    raise SystemExit(str(problem)) from None

FAILED = 1  # exit code: an error that the user can repair, reported in one line
LEFT_OUT = 3  # exit code: done, but some unusable rows were left out
BUSY = 4  # exit code: another process is working on some of the sessions


HELP = ["-h", "--help"]
UNCUT = 1000  # characters of a command's first sentence in a list: all of them
version_option = click.version_option(package_name=DISTRIBUTION, allow_from_autoenv=False)


class _OneLineErrors:
    """Turn `InputError`, and a missing extra, into one line and exit code 1.

    Run as a program (without `args`), it also ends cleanly on signals.
    """

    def __init__(
        self, *args: Any, context_settings: dict[str, Any] | None = None, **attributes: Any
    ) -> None:
        settings = {"help_option_names": HELP, **(context_settings or {})}
        super().__init__(*args, context_settings=settings, **attributes)  # type: ignore[call-arg]

    def main(self, args: Sequence[str] | None = None, *others: Any, **options: Any) -> Any:
        with nullcontext() if args is not None else exit_on_signals():
            return super().main(args, *others, **options)  # type: ignore[misc]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does; for an unknown option, suggest only options shown in the help."""
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc]
        except click.NoSuchOption as problem:
            shown = {name for param in self.get_params(ctx) for name in param.opts}  # type: ignore[attr-defined]
            close = [name for name in problem.possibilities or () if name in shown]
            raise click.NoSuchOption(problem.option_name, possibilities=close, ctx=ctx) from None


@contextmanager
def _one_line_errors(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except InputError as problem:
        _exit_with(problem, ctx)
    except ModuleNotFoundError as problem:
        missing = explain_missing_module(problem, ctx.command_path)
        if missing is None:
            raise
        _exit_with(missing, ctx)


def _exit_with(problem: InputError, ctx: click.Context) -> NoReturn:
    debug("traceback of the line below", problem=problem)
    click.echo(problem_text(_as_typed(str(problem), ctx)), err=True)
    raise SystemExit(FAILED) from problem


def _as_typed(text: str, ctx: click.Context) -> str:
    """Return an error's text, with its WHERE as on the command line instead of as in Python.

    An argument is replaced by its path, unless the error is that it "is given"; an option is
    replaced by its flag.
    """
    where, colon, rest = text.partition(": ")
    name = where.replace("-", "_")
    param = next((p for p in ctx.command.params if p.name == name), None)
    if param is None or not colon:
        return text
    value = ctx.params.get(name)
    is_path = isinstance(value, (str, Path)) and isinstance(param.type, click.Path)
    return f"{value if is_path and 'is given' not in rest else _label(param)}: {rest}"


class Command(_OneLineErrors, click.Command):
    """A single command with ``-q``, ``-v``, grouped options, and one-line errors."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        quiet = "Write only results and errors: no progress or notes on stderr."
        verbose = "Write debug messages, and the traceback of an error, to stderr."
        self.params.append(Option(["-q", "--quiet"], is_flag=True, help=quiet))
        self.params.append(Option(["-v", "--verbose"], is_flag=True, help=verbose))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, logging to stderr at the chosen level."""
        quiet, verbose = ctx.params.pop("quiet"), ctx.params.pop("verbose")
        if quiet and verbose:
            raise click.UsageError("--quiet and --verbose exclude each other; give one.", ctx)
        with logging_to_stderr(quiet=quiet, verbose=verbose), _one_line_errors(ctx):
            _debug_start(ctx)
            if ctx.params.get("no_lock"):
                warn(UNLOCKED)
            with _next_told(ctx), _outputs_protected(ctx):
                return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under the headings of their groups; options without a group last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                groups.setdefault(getattr(param, "group", ""), []).append(record)
        others = groups.pop("", [])
        title = "Other options" if groups else "Options"
        for heading, records in [*groups.items(), (title, others)]:
            with formatter.section(heading):
                formatter.write_dl(records)


def _debug_start(ctx: click.Context) -> None:
    """Log the command, its options and where their values come from."""
    debug(
        f"{ctx.command_path}, {DISTRIBUTION} {version(DISTRIBUTION)}, {platform.platform()}, "
        f"Python {platform.python_version()}"
    )
    for name, value in ctx.params.items():
        source = ctx.get_parameter_source(name)
        origin = source.name.lower().replace("_", " ") if source else "unknown"
        debug(f"{name} = {value!r} ({origin})")


@contextmanager
def _next_told(ctx: click.Context) -> Iterator[None]:
    """Suggest what to do next, after a command that has succeeded fully or except for some rows."""
    try:
        yield
    except SystemExit as ended:
        if ended.code in (0, LEFT_OUT):
            tell_next(ctx)
        raise
    tell_next(ctx)


class Group(_OneLineErrors, click.Group):
    """A group of commands, with one-line errors."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the named command."""
        with _one_line_errors(ctx):
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the whole first sentence of each command, which click would cut to one line."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(UNCUT)) for name, command in commands if command]
            )


def exit_left_out(rows: Iterable[object]) -> None:
    """Exit with code `LEFT_OUT` if any of `rows` is true."""
    if any(rows):
        raise SystemExit(LEFT_OUT)


def writes(
    *outputs: Output, overwrite: str = "Replace an output that exists with other content."
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a command's outputs, and add ``--overwrite``; a decorator for its function.

    Each output is checked by `outputs.check_place` before the function runs; while it runs, output
    files are not replaced with other content unless ``--overwrite`` is given. All other parameters
    of type `click.Path` are taken as inputs. The function receives `overwrite` if it has such a
    parameter. The argument `overwrite` is the option's help; if empty there is no such option, for
    commands that only ever resume in their folder.
    """

    def decorate(body: Callable[..., Any]) -> Callable[..., Any]:
        body.outputs = outputs  # type: ignore[attr-defined]
        # Not from the environment: replacing files must be asked for each time.
        add = option("--overwrite", is_flag=True, help=overwrite, allow_from_autoenv=False)
        return add(body) if overwrite else body

    return decorate


@contextmanager
def _outputs_protected(context: click.Context) -> Iterator[None]:
    """Check the paths of a command's outputs, and protect the files while it runs (`writes`)."""
    body = context.command.callback
    outputs: Sequence[Output] = getattr(body, "outputs", ())
    overwrite = bool(context.params.get("overwrite", False))
    files = _check_places(context, outputs, overwrite=overwrite)
    if outputs and body is not None and "overwrite" not in inspect.signature(body).parameters:
        context.params.pop("overwrite", None)
    with protecting([] if overwrite else files):
        yield


def _check_places(
    context: click.Context, outputs: Sequence[Output], *, overwrite: bool
) -> list[Path]:
    """Check the paths of a command's outputs; return those that are files."""
    names = {output.name for output in outputs}
    paths = {p: _paths(context.params.get(p.name or "")) for p in _path_params(context)}
    inputs = {_label(p): given for p, given in paths.items() if p.name not in names}
    files = []
    for output in outputs:
        (given,) = (given for p, given in paths.items() if p.name == output.name)
        for path in map(output.path, given):
            check_place(path, output, inputs, overwrite=overwrite)
            files += [] if output.folder or output.form or output.owned else [path]
    return files


def _path_params(context: click.Context) -> list[click.Parameter]:
    return [p for p in context.command.params if isinstance(p.type, click.Path)]


def _label(param: click.Parameter) -> str:
    """Return the name of a parameter in the command's help."""
    if isinstance(param, click.Option):
        return param.opts[0]
    return (param.metavar or param.name or "").upper().strip(".")


def _paths(value: Any) -> list[Path]:
    """Return the paths given for a parameter, also without an optional ``NAME=`` prefix."""
    if value is None:
        return []
    values = [str(item) for item in (value if isinstance(value, tuple) else (value,))]
    named = [text.split("=", maxsplit=1)[1] for text in values if "=" in text]
    return [Path(text) for text in (*values, *named) if text]


def locks(body: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--no-lock`` to a command that locks a folder; a decorator.

    The function receives `no_lock`; if set, a warning is logged.
    """
    text = "Run on file systems without locks; then let no other command write to the folder."
    return option("--no-lock", is_flag=True, help=text)(body)
