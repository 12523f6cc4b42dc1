"""Read the features of a segment table from a store, in table order.

Segments rejected at extraction are left out and counted; segments that the store does not know
raise `InputError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.counts import counted
from ..common.errors import InputError, check_choice
from ..extract.options import parse_layer_list
from ..extract.store.reader import FeatureStore

if TYPE_CHECKING:
    import pandas as pd


COMBINE = ("alone", "concat", "average")
# Written by earlier versions, still read: layers concatenated with one learnt weight each, and
# features divided by one number for all instead of each by its own deviation.
MIX, STANDARDISE = "mix", ("yes", "no")
SEARCHES = {"pairs": 2, "triples": 3}  # layers per concatenated vector; all combinations are tried
NOT_STANDARDISED = ", not standardised"
PARTS = ("mean", "std", "both")


@dataclass(frozen=True)
class LayerSet:
    """The layers of one feature vector: a single layer, a concatenation, or a mean.

    Models and runs of earlier versions may also hold a mix (`weights`, one > 0 per layer, which sum
    to 1), or features divided by one number for all (`standardise` is ``no``).
    """

    layers: tuple[int, ...]
    combine: str = "alone"
    weights: tuple[float, ...] = ()
    standardise: str = "yes"

    @property
    def name(self) -> str:
        """Return `"7"`, `"concat:4+8"`, `"average:4+8"` or `"mix:4+8"`."""
        numbers = "+".join(map(str, self.layers))
        return numbers if self.combine == "alone" else f"{self.combine}:{numbers}"

    @property
    def description(self) -> str:
        """Return `"layer 7"`, `"layers mix:4+8"` or `"layer 7, not standardised"`."""
        kind = "layer" if self.combine == "alone" else "layers"
        return f"{kind} {self.name}" + ("" if self.standardise == "yes" else NOT_STANDARDISED)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable dict for `from_dict`."""
        return {
            "layers": list(self.layers),
            "combine": self.combine,
            "weights": list(self.weights),
            "standardise": self.standardise,
        }

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> LayerSet:
        """Return the layers that a dict describes; other entries are ignored.

        Dicts of earlier versions lack `weights`, or `standardise`.
        """
        return cls(
            tuple(described["layers"]),
            described["combine"],
            tuple(described.get("weights", ())),
            described.get("standardise", "yes"),
        )


def layer_sets(layers: str, combine: str, store: FeatureStore) -> list[LayerSet]:
    """Return the layer sets that `layers` (``all``, ``0-12``, ``4,8``) and `combine` name.

    ``alone`` gives one set per layer, ``concat`` and ``average`` a single set of all, ``pairs`` and
    ``triples`` every concatenation of two or three.

    Raises
    ------
    InputError
        The text is not a list of layers, there are too few, or the store does not hold one of them.
    """
    check_choice("combine", combine, (*COMBINE, *SEARCHES))
    every = list(store.layers)
    chosen = every if layers.strip() == "all" else parse_layer_list(layers, every[-1])
    missing = [layer for layer in chosen if layer not in store.layers]
    if missing:
        raise InputError(
            f"layers: {missing[0]} is not in the store, expected some of {list(store.layers)}; "
            "correct --layers, or extract that layer to another store where the encoder has it"
        )
    if combine == "alone":
        return [LayerSet((layer,)) for layer in chosen]
    if combine in SEARCHES:
        if len(chosen) < SEARCHES[combine]:
            raise InputError(
                f"layers: {len(chosen)} are given for {combine}, expected at least "
                f"{SEARCHES[combine]}; correct --layers"
            )
        return [LayerSet(several, "concat") for several in combinations(chosen, SEARCHES[combine])]
    return [LayerSet(tuple(chosen), combine)]


def open_store(store: FeatureStore | str | Path) -> FeatureStore:
    """Open a store of pooled features; raise `InputError` for one of frames."""
    store = store if isinstance(store, FeatureStore) else FeatureStore.open(store)
    if store.kind != "pooled":
        raise InputError(
            f"{store.path}: kind is {store.kind!r}, expected 'pooled'; "
            "run spk-extract without --frames"
        )
    return store


def encoder_kind(config: Mapping[str, Any], form: str = "{}") -> str:
    """Return the kind of an encoder with little or no training, in `form`; otherwise "".

    >>> encoder_kind({"untrained": True}, " ({})")
    ' (untrained encoder)'
    >>> encoder_kind({"trained_on": "4.5 h of speech"})
    'small encoder, trained on 4.5 h of speech'
    """
    if config.get("baseline"):
        return form.format("baseline")
    if config.get("trained_on"):
        return form.format(f"small encoder, trained on {config['trained_on']}")
    return form.format("untrained encoder") if config.get("untrained") else ""


def rows_with_features(
    table: pd.DataFrame, store: FeatureStore
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows that have features, in table order, and those rejected at extraction.

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
            f"{store.path}: {counted(len(unknown), 'segment', 'has', of=len(table))} no features, "
            f"first {unknown.iloc[0]!r}; run spk-extract on the same table"
        )
    if not present.any():
        raise InputError(
            f"{store.path}: {counted(0, 'segment', 'has', of=len(table))} features, expected at "
            "least 1; see why they were rejected with spk-store info"
        )
    return table[present].reset_index(drop=True), table[rejected].reset_index(drop=True)


def read_features(
    store: FeatureStore, ids: Sequence[str] | np.ndarray, layer_set: LayerSet, part: str
) -> np.ndarray:
    """Return X (n, d) float32, rows in the order of `ids`.

    `part` selects from vectors [mean, std]: ``mean``, ``std`` or ``both``.

    Raises
    ------
    InputError
        `part` is not in the store's pooling, or ids are missing.
    """
    check_choice("pooling-part", part, PARTS)
    keep = _columns(store, part)
    blocks = (store.read(ids, layer)[:, keep] for layer in layer_set.layers)
    if len(layer_set.layers) == 1:
        return np.ascontiguousarray(next(blocks))
    if layer_set.combine in ("concat", MIX):
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


Log = Callable[[str], Any]  # where progress and notes go: click.echo, print, list.append
