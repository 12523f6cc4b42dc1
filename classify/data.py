"""Store and table become X and y, in table order, and the closed-set tasks on them.

A task is one closed set of labels: a meeting's speakers (``within="session"``) or everybody
(``within="corpus"``). Rows whose split is empty (purged) are in no task. Segments that extraction
rejected are left out and counted; segments the store knows nothing about are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extract.store import FeatureStore
from ..manifests.split import read_record
from ..manifests.table import SPLITS, InputError

if TYPE_CHECKING:
    import pandas as pd

COMBINE = ("alone", "concat", "average", "mix")
SEARCHES = {"pairs": 2, "triples": 3}  # every so many layers, each combination in one vector
PARTS = ("mean", "std", "both")
WITHIN = ("session", "corpus")


@dataclass(frozen=True)
class LayerSet:
    """The layers that make one feature vector: one alone, several in a row, or their mean.

    A mix is several in a row, each with a weight > 0; the weights sum to 1 (`mix.mix_layers`).
    """

    layers: tuple[int, ...]
    combine: str = "alone"
    weights: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """Return `"7"`, `"concat:4+8"`, `"average:4+8"` or `"mix:4+8"`."""
        numbers = "+".join(map(str, self.layers))
        return numbers if self.combine == "alone" else f"{self.combine}:{numbers}"


@dataclass(frozen=True)
class Task:
    """One closed set: `rows[split]` are row numbers of the table, `codes[split]` index `labels`.

    A code is -1 where the label has no training segment (always counted as wrong). `cuts` are the
    folds of cross-validation, (learnt, held out) as positions in ``rows["train"]``; then
    ``rows["valid"]`` are all that are held out in turn. Without folds there are none.
    """

    name: str
    labels: tuple[str, ...]
    rows: Mapping[str, np.ndarray]
    codes: Mapping[str, np.ndarray]
    cuts: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    @property
    def majority(self) -> int:
        """Return the code of the label with most training segments (the first of equals)."""
        return int(np.argmax(np.bincount(self.codes["train"], minlength=len(self.labels))))


def layer_sets(layers: str, combine: str, store: FeatureStore) -> list[LayerSet]:
    """Return what `layers` (``all``, ``0-12``, ``4,8``) and `combine` ask of a store.

    ``alone`` gives one set per layer, ``concat`` and ``average`` one set of them all, ``mix`` one
    that has no weights yet, ``pairs`` and ``triples`` every two or three of them, concatenated.

    Raises
    ------
    InputError
        The text is not a list of layers, there are too few, or the store does not hold one of them.
    """
    require("combine", combine, (*COMBINE, *SEARCHES))
    chosen = list(store.layers) if layers.strip() == "all" else _numbers(layers)
    missing = [layer for layer in chosen if layer not in store.layers]
    if missing:
        raise InputError(
            f"layers: {missing[0]} is not in the store, expected some of {list(store.layers)}; "
            "run spk-extract with this layer"
        )
    if combine == "alone" or (combine == "mix" and len(chosen) == 1):
        return [LayerSet((layer,)) for layer in chosen]
    if combine in SEARCHES:
        if len(chosen) < SEARCHES[combine]:
            raise InputError(
                f"layers: {len(chosen)} are given for {combine}, expected at least "
                f"{SEARCHES[combine]}; correct --layers"
            )
        return [LayerSet(several, "concat") for several in combinations(chosen, SEARCHES[combine])]
    return [LayerSet(tuple(chosen), combine)]


def _numbers(layers: str) -> list[int]:
    numbers: list[int] = []
    try:
        for piece in layers.split(","):
            first, _, last = piece.strip().partition("-")
            numbers += range(int(first), int(last or first) + 1)
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) < len(numbers):
        raise InputError(
            f"layers: {layers!r} is given, expected 'all', a range '0-12' or a list '4,8', "
            "each layer once; correct --layers"
        )
    return numbers


def require(where: str, value: str, choices: Sequence[str]) -> None:
    """Raise `InputError` unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(
            f"{where}: {value!r} is given, expected one of {', '.join(choices)}; correct it"
        )


def open_store(path: str | Path) -> FeatureStore:
    """Open a store of pooled features, and refuse one of frames."""
    store = FeatureStore.open(path)
    if store.kind != "pooled":
        raise InputError(
            f"{path}: kind is {store.kind!r}, expected 'pooled'; run spk-extract without --frames"
        )
    return store


def match(table: pd.DataFrame, store: FeatureStore) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows that have features, in table order, and those that extraction rejected.

    Raises
    ------
    InputError
        The store holds neither features nor a rejection of a segment, or no features at all.
    """
    present = table["segment_id"].isin(set(map(str, store.ids())))
    rejected = ~present & table["segment_id"].isin({row["segment_id"] for row in store.rejected()})
    unknown = table["segment_id"][~present & ~rejected]
    if len(unknown):
        raise InputError(
            f"{store.path}: {len(unknown)} of {len(table)} segments have no features, "
            f"first {unknown.iloc[0]!r}; run spk-extract on the same table"
        )
    if not present.any():
        raise InputError(
            f"{store.path}: 0 of {len(table)} segments have features, expected at least 1; "
            "see why they were rejected with spk-store info"
        )
    return table[present].reset_index(drop=True), table[rejected].reset_index(drop=True)


def read_features(
    store: FeatureStore, ids: Sequence[str] | np.ndarray, layer_set: LayerSet, part: str
) -> np.ndarray:
    """Return X (n, d) float32, rows in the order of `ids`.

    `part` chooses from vectors [mean, std]: ``mean``, ``std`` or ``both``.

    Raises
    ------
    InputError
        `part` is not in the store's pooling, or ids are missing.
    """
    require("pooling-part", part, PARTS)
    keep = _columns(store, part)
    blocks = (store.read(ids, layer)[:, keep] for layer in layer_set.layers)
    if layer_set.combine in ("concat", "mix"):
        return np.concatenate(list(blocks), axis=1)
    total = next(blocks).astype(np.float32)
    for block in blocks:
        total += block
    return total / np.float32(len(layer_set.layers))


def _columns(store: FeatureStore, part: str) -> slice:
    pooling, dim = store.config["pooling"], store.dim
    if part in ("both", pooling):
        return slice(None)
    if pooling != "mean+std":
        raise InputError(
            f"pooling-part: {part!r} is asked for, the store's pooling is {pooling!r}, expected "
            "'mean+std'; pass --pooling-part both"
        )
    return slice(0, dim // 2) if part == "mean" else slice(dim // 2, None)


def make_tasks(
    table: pd.DataFrame, within: str, *, needed: Sequence[str] = SPLITS, target: str = "speaker"
) -> tuple[list[Task], dict[str, str]]:
    """Return the tasks that can be done, in order of name, and {session: why not} for the others.

    `needed` are the splits in which a task must have segments; `target` is the column of labels.

    Raises
    ------
    InputError
        The table has no split, a needed split is empty everywhere, or no task is left.
    """
    require("within", within, WITHIN)
    check_splits(table, needed)
    sessions = table["session"].to_numpy(str)
    tasks, skipped = [], {}
    for name in sorted(set(map(str, sessions))) if within == "session" else ["corpus"]:
        rows = np.arange(len(table)) if within == "corpus" else np.flatnonzero(sessions == name)
        task = _make_task(table, name, rows, target)
        reason = _unfit(task, needed)
        if reason:
            counts = ", ".join(f"{len(task.rows[part])} {part}" for part in SPLITS)
            skipped[name] = f"{reason} ({counts})"
        else:
            tasks.append(task)
    if not tasks:
        first = next(iter(skipped))
        option = "pass --within corpus, or " if within == "session" else ""
        raise InputError(
            f"table: {len(skipped)} of {len(skipped)} tasks cannot be done, first {first!r} "
            f"({skipped[first]}), expected at least 1; {option}split it again with spk-manifests "
            "split"
        )
    return tasks, skipped


def check_splits(table: pd.DataFrame, needed: Sequence[str] = SPLITS) -> None:
    """Raise `InputError` unless the table has segments of every split in `needed`."""
    found = set(table["split"]) if "split" in table else set()
    for split in needed:
        if split not in found:
            option = ", its method and --valid-share SHARE" if split == "valid" else ""
            raise InputError(
                f"table: 0 segments have split {split!r}, expected at least 1; "
                f"make it anew with spk-manifests split{option}"
            )


def _make_task(table: pd.DataFrame, name: str, rows: np.ndarray, target: str) -> Task:
    split = table["split"].to_numpy(str)[rows]
    label = table[target].to_numpy(str)[rows]
    labels = tuple(sorted(set(label[split == "train"])))
    number = {text: code for code, text in enumerate(labels)}
    codes = np.array([number.get(text, -1) for text in label], dtype=np.int64)
    return Task(
        name,
        labels,
        {part: rows[split == part] for part in SPLITS},
        {part: codes[split == part] for part in SPLITS},
    )


def _unfit(task: Task, needed: Sequence[str]) -> str:
    empty = [split for split in needed if not len(task.rows[split])]
    if empty:
        return f"no {empty[0]} segments"
    if len(task.labels) < 2:
        return f"{len(task.labels)} label in train, fewer than two"
    return ""


def split_method(path: str | Path) -> str:
    """Return how a table was split, from the note `spk-manifests split` leaves beside it.

    ``"random (leaky)"`` for the reference's split, ``"unknown"`` without a note.
    """
    record = read_record(path)
    if record is None:
        return "unknown"
    if "method" not in record:
        raise InputError(f"{path}: its split's record names no method; split the table again")
    return "random (leaky)" if record["method"] == "random" else str(record["method"])


Teller = Callable[[str], Any]  # where progress and notes go: click.echo, print, list.append
