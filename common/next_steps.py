"""What to do next: the last line of a command, on stderr, ready to be typed.

`STEPS` lists the suggestions of every command; a new command gets an entry there, `END` if nothing
follows. The lines may contain:

    {table}          the value of that argument or option
    {new:table.csv}  a path beside the command's output at which nothing exists yet
    {recordings}     --audio-root with the folder of the table's audio, searched for near the table;
                     else AUDIO, to be filled in, as an extra line explains
    {clips}          the same, or nothing if the folder is not found
    {again}          the command itself, without the options that made it a trial (`TRIALS`) and
                     without those listed, as in {again:encoder,layers}
    {audio}          {recordings}, if the command did not find them where it looked
    {table_near}     --table with the only table near the predictions that matches, and {clips}
    {page}           the address of the page that was written; {page:NAME} for one in a folder
    {same}           options of `SWEEPS` as typed, so that `fit` chooses as the sweep did
    {a_run}          the sweep's folder, if its predictions were given; likewise {b_run}

A step is suggested if its condition (`when`) holds and all its placeholders are known.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .log import is_quiet, log
from .nearby import audio_folder, first_rows, table_of
from .terminal import paint

Values = Mapping[str, Any]  # of a command's arguments and options
KNOWN = "spk.known"  # in click's `meta`: what a command's body has found (`know`)
TRIALS = ("plan", "dry_run", "listing_only")  # options that only try, or do a part
AUDIO_AWAY = "audio_away"  # set by a body that has not found the recordings
UNFINISHED = "unfinished"  # set by a body some of whose units were given up
AUDIO = " --audio-root AUDIO"
# Options that `sweep` and `fit` share, and that affect which model is chosen.
SWEEPS = (
    *("within", "layers", "combine", "pooling_part", "classifiers", "penalty"),
    *("folds", "gap", "refit", "seed"),
)


@dataclass(frozen=True)
class Step:
    """A suggested line, offered if the condition holds."""

    line: str
    when: Callable[[Values], bool] = lambda values: True


def divided(name: str) -> Callable[[Values], bool]:
    """Return the condition that a table has train, valid or test rows."""
    return lambda values: any(row.get("split") for row in first_rows(values.get(name)))


def undivided(name: str) -> Callable[[Values], bool]:
    """Return the condition that a table has no such rows, but times by which to split it."""

    def holds(values: Values) -> bool:
        rows = first_rows(values.get(name))
        timed = any(row.get("start") not in ("", "0", "0.0", 0, None) for row in rows)
        return timed and not divided(name)(values)

    return holds


def given(name: str) -> Callable[[Values], bool]:
    """Return the condition that an option was given, and is not "no"."""
    return lambda values: bool(values.get(name))


def not_given(name: str) -> Callable[[Values], bool]:
    """Return the opposite of `given`."""
    return lambda values: not values.get(name)


def _extract(table: str) -> str:
    return f"spk-extract {{{table}}} {{new:features}}{{recordings}} --encoder small"


AGAIN = [Step("{again}{audio}", given(name)) for name in (*TRIALS, UNFINISHED)]
# A plan cannot size an encoder that is not at hand; another encoder has other options.
OTHER_ENCODER = Step(
    "{again:encoder,revision,normalize,layers} --encoder small{audio}", given("encoder_away")
)
OF_CORPUS = [Step("spk-manifests rttm {out}/TextGrid {new:turns.csv} --audio-root {out}/wav")]
OF_TURNS = [
    Step("spk-manifests select {table} {new:segments.csv} --min-seconds 1.5", undivided("table")),
    Step(_extract("table"), divided("table")),
]
OF_PREDICTIONS = [Step("spk-classify score {predictions} --table {table}")]


def _of_features(store: str) -> list[Step]:
    return [
        Step("spk-manifests split {table} {new:table.csv}", undivided("table")),
        Step(f"spk-classify sweep {{table}} {{{store}}} {{new:sweep}}", divided("table")),
    ]


def _of_run(run: str) -> list[Step]:
    line = f"spk-classify report {{{run}}} --table {{table}}{{clips}} -o {{new:report.html}}"
    return [Step(line)]


END: list[Step] = []  # nothing follows: the question is answered, or other programs read the file

STEPS: dict[str, list[Step]] = {
    "spk-manifests sample": [
        *OF_CORPUS,
        Step("spk-name enrol {new:team.voices} --clips {out}/clips"),
    ],
    "spk-manifests demo": OF_CORPUS,
    **{
        f"spk-manifests {name}": OF_TURNS
        for name in (
            *("rttm", "textgrid", "whisperx", "srt", "vtt", "txt", "eaf", "lhotse", "kaldi"),
            *("nemo", "turns", "csv", "describe"),
        )
    },
    "spk-manifests select": [
        Step("spk-manifests split {out} {new:table.csv}", undivided("out")),
        Step(_extract("out"), divided("out")),
    ],
    "spk-manifests split": [Step(_extract("out"))],
    "spk-manifests correct": [
        Step("spk-manifests split {output} {new:table.csv}", undivided("output")),
        Step(_extract("output"), divided("output")),
    ],
    "spk-manifests leaks": [Step(_extract("table"), divided("table"))],
    "spk-manifests cut": [
        *AGAIN,
        Step(
            "spk-manifests split {out}/segments.table.csv {new:table.csv} --times {table}",
            undivided("table"),
        ),
        Step(
            "spk-extract {out}/segments.table.csv {new:features} --audio-root {out} "
            "--encoder small",
            divided("table"),
        ),
        Step(
            "spk-manifests split {output_dir}/segments.table.csv {new:table.csv} --times {rttm_dir}"
        ),
    ],
    "spk-manifests match-csv": AGAIN,
    "spk-manifests export": END,
    "spk-extract": [OTHER_ENCODER, *AGAIN, *_of_features("store_path")],
    "spk-store info": [Step("spk-store verify {path}")],
    "spk-store verify": END,
    "spk-store merge": [Step("spk-store verify {out}")],
    "spk-store pack": [Step("spk-store verify {out}")],
    "spk-store export": END,
    "spk-store import": _of_features("out"),
    "spk-classify sweep": [
        *AGAIN,
        *_of_run("out"),
        Step("spk-classify fit {table} {store} {new:model}{same}"),
    ],
    "spk-classify audit": [
        Step("python3 -m webbrowser -t {page:audit.html}"),
        Step(
            "spk-manifests correct {table} {out}/corrections.csv -o {new:corrected.csv}",
            lambda values: bool(first_rows(Path(values["out"], "corrections.csv"))),
        ),
    ],
    "spk-classify link": [
        Step(
            "spk-name enrol {new:team.voices} {table} {store} --identity {out}/people.csv",
            lambda values: bool(first_rows(Path(values["out"], "people.csv"))),
        )
    ],
    "spk-classify curve": _of_run("run"),
    "spk-classify open-set": _of_run("run"),
    "spk-classify fit": [
        Step("spk-classify predict {model} {table} {store} {new:predictions.csv}")
    ],
    "spk-classify predict": OF_PREDICTIONS,
    "spk-classify score": [
        *_of_run("predictions"),
        Step(
            "spk-classify report {predictions}{table_near} -o {new:report.html}",
            not_given("table"),
        ),
    ],
    "spk-classify compare": [
        Step("spk-classify report {a_run} {b_run}{table_near} -o {new:report.html}")
    ],
    "spk-classify report": [Step("python3 -m webbrowser -t {page}")],
    "spk-name enrol": [Step("spk-name list {voices}")],
    "spk-name apply": [
        Step("{again} --review", not_given("review")),
        Step("python3 -m webbrowser -t {page:review.html}", given("review")),
    ],
    "spk-name score": END,
    "spk-name list": END,
    "spk-name remove": [Step("spk-name list {voices}")],
    "spk-finetune fit": [
        *AGAIN,
        Step("spk-classify score {tuned} --table {table}", lambda v: os.path.exists(v["tuned"])),
    ],
    "spk-finetune predict": OF_PREDICTIONS,
    "spk-finetune embed": _of_features("store_path"),
    "spk-info": END,
}
BY_VARIABLE = {name.upper().replace("-", "_").replace(" ", "_"): name for name in STEPS}


def know(**values: object) -> None:
    """Record, for the last line, what only a command's body can know."""
    meta = click.get_current_context().meta
    meta[KNOWN] = {**meta.get(KNOWN, {}), **values}


def tell_next(ctx: click.Context) -> None:
    """Log what to do next, after a command that has succeeded."""
    if is_quiet():
        return
    for number, line in enumerate(next_lines(ctx)):
        if AUDIO in line:
            log("AUDIO stands for the folder of the recordings, which are not near the table")
        log(paint("or:   " if number else "next: ", sys.stderr, fg="cyan", bold=True) + line)


def next_lines(ctx: click.Context) -> list[str]:
    """Return the suggestions after a command, the best first."""
    name = BY_VARIABLE.get(ctx.auto_envvar_prefix or "", "")
    values = {key: value for key, value in ctx.params.items() if value not in (None, (), "")}
    values |= ctx.meta.get(KNOWN, {})
    lines = []
    for step in STEPS.get(name, END):
        if not step.when(values):
            continue
        try:
            lines.append(step.line.format_map(_Words(values, name, ctx)))
        except KeyError:  # a placeholder is not known
            continue
        if step.line.startswith("{again"):
            break
    if ctx.find_root().info_name == "spk":  # typed as `spk NAME`, so suggest that form
        lines = [re.sub("^spk-", "spk ", line) for line in lines]
    return lines


class _Words(dict[str, Any]):
    """The value of each placeholder in a step's line, quoted for the shell."""

    def __init__(self, values: Values, name: str, ctx: click.Context) -> None:
        super().__init__(values)
        self._name, self._ctx = name, ctx

    def __getitem__(self, key: str) -> Any:
        if key in ("recordings", "clips"):
            return self._audio_root(AUDIO if key == "recordings" else "")
        if key in ("a_run", "b_run"):
            return shlex.quote(_run_of(str(super().__getitem__(key[0]))))
        made = {
            "new": lambda: _New(self._folder()),
            "again": lambda: _Again(self._name, self._ctx, moved=bool(self.get(AUDIO_AWAY))),
            "audio": lambda: self._audio_root(AUDIO) if self.get(AUDIO_AWAY) else "",
            "table_near": self._table_near,
            "same": lambda: "".join(f" {shlex.quote(word)}" for word in self._swept()),
            "page": lambda: _Page(self.get("output") or self.get("out")),
        }
        return made[key]() if key in made else shlex.quote(str(super().__getitem__(key)))

    def _swept(self) -> list[str]:
        return typed_options(self._ctx, SWEEPS)

    def _table_near(self) -> str:
        table = table_of(str(self.get("a") or self.get("predictions")))
        return f" --table {shlex.quote(table)}{self._audio_root('', table)}" if table else ""

    def _audio_root(self, unknown: str, table: str | None = None) -> str:
        folder = audio_folder(table or str(super().__getitem__("table")))
        if folder is None:
            return unknown
        return f" --audio-root {shlex.quote(folder)}" if folder else ""

    def _folder(self) -> Path:
        """Return where to suggest new files: beside the command's output, or else its table."""
        outputs = getattr(self._ctx.command.callback, "outputs", ())
        names = [*(output.name for output in outputs), "table"]
        return next((Path(str(self.get(name))).parent for name in names if name in self), Path())


class _Again:
    """A command as typed, without the options that the format specification lists."""

    def __init__(self, name: str, ctx: click.Context, *, moved: bool) -> None:
        self._name, self._ctx, self._moved = name, ctx, moved

    def __format__(self, omitted: str) -> str:
        names = [*omitted.split(","), *(["audio_root"] if self._moved else [])]
        return shlex.join([*self._name.split(), *typed_words(self._ctx, names)])


class _New:
    """A path in a folder at which nothing exists yet; the format specification is its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __format__(self, name: str) -> str:
        stem, suffix = os.path.splitext(name)
        number, path = 1, self._folder / name
        while os.path.lexists(path):
            number += 1
            path = self._folder / f"{stem}-{number}{suffix}"
        return shlex.quote(str(path))


def _run_of(predictions: str) -> str:
    """Return the folder of the sweep that wrote the predictions, or their own path if none did."""
    path = Path(predictions)
    swept = path.stem == "predictions" and (path.parent / "sweep.csv").is_file()
    return str(path.parent if swept else path)


class _Page:
    """The address of an existing page: a file, or the one in a folder that the format names."""

    def __init__(self, path: object) -> None:
        self._path = Path(str(path)).absolute()

    def __format__(self, name: str) -> str:
        path = self._path / name if name else self._path
        if not path.is_file():
            raise KeyError(name)
        return path.as_uri()


def typed_words(ctx: click.Context, omitted: Sequence[str] = ()) -> list[str]:
    """Return a command's words as typed, without the options in `TRIALS` and `omitted`."""
    words, options = list[str](), list[str]()
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "")
        if value is None or param.name in (*TRIALS, *omitted):
            continue
        if not isinstance(param, click.Option):
            words += [str(part) for part in (value if isinstance(value, tuple) else (value,))]
        else:
            options += typed_options(ctx, (param.name or "",))
    return [*words, *options]


def typed_options(ctx: click.Context, names: Sequence[str]) -> list[str]:
    """Return those of the named options that were typed, with their values."""
    options = list[str]()
    for param in ctx.command.params:
        name = param.name or ""
        value = ctx.params.get(name)
        if name not in names or value is None:
            continue
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            values = [str(part) for part in (value if isinstance(value, tuple) else (value,))]
            flags = param.opts if value else param.secondary_opts
            is_flag = isinstance(param, click.Option) and param.is_flag
            options += flags[:1] if is_flag else [w for v in values for w in (flags[0], v)]
    return options
