"""What to do next: the last line of a command, on stderr, to be typed as it is.

`STEPS` is the one place where it is said; a new command gets an entry there, `END` if nothing
follows. In a line stand:

    {table}          what was given as that argument or option
    {new:table.csv}  a path beside the command's output at which nothing lies yet
    {recordings}     --audio-root with the folder of the table's audio, looked for near the table;
                     else AUDIO, to be filled in, which a line before it says
    {clips}          the same, or nothing where it is not near
    {again}          the command itself, without what made it a trial (`TRIALS`)
    {page}           the address of the page that was written, of a folder {page:NAME} in it
    {same}           options of `SWEEPS` as they were typed: what is fitted is tried as it was
    {a_run}          a sweep's folder where its predictions were given, and so {b_run}

A step is offered where its condition (`when`) holds and all that stands in it is known.
"""

from __future__ import annotations

import csv
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .log import is_quiet, log
from .terminal import paint

Values = Mapping[str, Any]  # of a command's arguments and options
KNOWN = "spk.known"  # in click's `meta`: what a command's body has found out (`know`)
TRIALS = ("plan", "dry_run", "listing_only")  # options that try, or do a part
UNFINISHED = "unfinished"  # what a body knows whose units were given up
AUDIO = " --audio-root AUDIO"
MOST_ROWS = 1000  # of a table that are looked at
MOST_FOLDERS = 500  # near a table in which its audio is looked for
DEEPEST = 3  # folders below the table's
# Options of `sweep` that `fit` has too, and by which it would choose another model.
SWEEPS = (
    *("within", "layers", "combine", "pooling_part", "classifiers", "penalty"),
    *("folds", "gap", "refit", "seed"),
)


@dataclass(frozen=True)
class Step:
    """A line that may be typed next, offered where the condition holds."""

    line: str
    when: Callable[[Values], bool] = lambda values: True


def divided(name: str) -> Callable[[Values], bool]:
    """Return the condition that a table has train, valid or test rows."""
    return lambda values: any(row.get("split") for row in first_rows(values.get(name)))


def undivided(name: str) -> Callable[[Values], bool]:
    """Return the condition that a table has none, but times by which it can be split."""

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


AGAIN = [Step("{again}", given(name)) for name in (*TRIALS, UNFINISHED)]
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


END: list[Step] = []  # nothing follows: the question is answered, or the file is for other programs

STEPS: dict[str, list[Step]] = {
    "spk-manifests sample": OF_CORPUS,
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
    "spk-extract": [*AGAIN, *_of_features("store_path")],
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
        Step("spk-classify report {predictions} -o {new:report.html}", not_given("table")),
    ],
    "spk-classify compare": [Step("spk-classify report {a_run} {b_run} -o {new:report.html}")],
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
    """Let the last line know what only a command's body can tell."""
    meta = click.get_current_context().meta
    meta[KNOWN] = {**meta.get(KNOWN, {}), **values}


def tell_next(ctx: click.Context) -> None:
    """Log what to do after a command that has done what it was asked to."""
    if is_quiet():
        return
    for number, line in enumerate(next_lines(ctx)):
        if AUDIO in line:
            log("AUDIO stands for the folder of the recordings, which are not near the table")
        log(paint("or:   " if number else "next: ", sys.stderr, fg="cyan", bold=True) + line)


def next_lines(ctx: click.Context) -> list[str]:
    """Return what may be typed after a command, the first before others."""
    name = BY_VARIABLE.get(ctx.auto_envvar_prefix or "", "")
    values = {key: value for key, value in ctx.params.items() if value not in (None, (), "")}
    values |= ctx.meta.get(KNOWN, {})
    lines = []
    for step in STEPS.get(name, END):
        if not step.when(values):
            continue
        try:
            lines.append(step.line.format_map(_Words(values, name, ctx)))
        except KeyError:  # something in it is not known
            continue
        if step in AGAIN:
            break
    if ctx.find_root().info_name == "spk":  # typed so, and so is what follows
        lines = [re.sub("^spk-", "spk ", line) for line in lines]
    return lines


class _Words(dict[str, Any]):
    """What stands for each name in a step's line, quoted for the shell."""

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
            "again": lambda: shlex.join([*self._name.split(), *typed_words(self._ctx)]),
            "same": lambda: "".join(f" {shlex.quote(word)}" for word in self._swept()),
            "page": lambda: _Page(self.get("output") or self.get("out")),
        }
        return made[key]() if key in made else shlex.quote(str(super().__getitem__(key)))

    def _swept(self) -> list[str]:
        return typed_options(self._ctx, SWEEPS)

    def _audio_root(self, unknown: str) -> str:
        folder = _audio_folder(str(super().__getitem__("table")))
        if folder is None:
            return unknown
        return f" --audio-root {shlex.quote(folder)}" if folder else ""

    def _folder(self) -> Path:
        """Return where new things are suggested: beside the command's output, or its table."""
        outputs = getattr(self._ctx.command.callback, "outputs", ())
        names = [*(output.name for output in outputs), "table"]
        return next((Path(str(self.get(name))).parent for name in names if name in self), Path())


class _New:
    """A path in a folder at which nothing lies; its name is the format's specification."""

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
    """Return the folder of the sweep that wrote predictions, or themselves where none did."""
    path = Path(predictions)
    swept = path.stem == "predictions" and (path.parent / "sweep.csv").is_file()
    return str(path.parent if swept else path)


class _Page:
    """The address of a page that is there: a file, or one in a folder, its name as the format."""

    def __init__(self, path: object) -> None:
        self._path = Path(str(path)).absolute()

    def __format__(self, name: str) -> str:
        path = self._path / name if name else self._path
        if not path.is_file():
            raise KeyError(name)
        return path.as_uri()


def typed_words(ctx: click.Context) -> list[str]:
    """Return a command's words as they were typed, without those of `TRIALS`."""
    words, options = list[str](), list[str]()
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "")
        if value is None or param.name in TRIALS:
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


def first_rows(path: object) -> list[dict[str, Any]]:
    """Return some rows of a segment table of ours, or nothing where it is none."""
    text = str(path)
    try:
        if text.endswith(".parquet"):
            from pyarrow.parquet import ParquetFile

            batches = ParquetFile(text).iter_batches(MOST_ROWS)
            return next((batch.to_pylist() for batch in batches), [])
        with open(text, encoding="utf-8-sig", newline="") as file:
            return list(islice(csv.DictReader(file), MOST_ROWS))
    except (OSError, ValueError, csv.Error):  # of another kind, or gone
        return []


def _audio_folder(table: str) -> str | None:
    """Return the folder that a table's audio is in, near the table; "" where it needs none.

    None where it is not found, or the table is none of ours.
    """
    audio = next((str(row["audio"]) for row in first_rows(table) if row.get("audio")), "")
    if os.path.isabs(audio):
        return ""
    folder = folder_with(audio, Path(table).parent) if audio else None
    return None if folder is None else str(folder)


def folder_with(file: str, start: Path) -> Path | None:
    """Return the nearest folder, `start` or below it, in which a file lies, or None."""
    folders = islice(_folders(start), MOST_FOLDERS)
    return next((folder for folder in folders if os.path.isfile(folder / file)), None)


def _folders(start: Path) -> Iterator[Path]:
    """Yield a folder and those below it, the nearest first."""
    level = [start]
    for _ in range(DEEPEST + 1):
        yield from level
        below: Sequence[Path] = []
        for folder in level:
            try:
                below = [*below, *sorted(path for path in folder.iterdir() if path.is_dir())]
            except OSError:
                continue
        level = list(below)
