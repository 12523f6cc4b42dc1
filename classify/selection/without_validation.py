"""A model without validation rows: what is fitted if nothing can be chosen, and its limits.

It is centroid, the simplest of the named classifiers without a penalty to choose, on the mean of
several layers. Its probabilities are flat except for their order, since no row shows how reliable a
score is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...common.counts import counted
from ...extract.store.reader import FeatureStore
from ...manifests.splits.tasks import Task
from ..classifiers.registry import penalty_path
from ..classifiers.temperatures import shared_temperature
from ..features import layer_sets
from ..options import SweepSettings
from .candidates import Candidate, classifier_names

if TYPE_CHECKING:
    import pandas as pd


NOTHING = "nothing"  # what such a model was chosen and calibrated on
FIXED = ("alone", "concat", "average")  # ways to combine layers that need no choice
NOT_CALIBRATED = (
    "uncalibrated: no validation rows, so probabilities rank speakers but do not say how probable "
    "they are; how often a name is right is unknown too"
)


def settings_without_choice(
    table: pd.DataFrame, store: FeatureStore, settings: SweepSettings
) -> SweepSettings | None:
    """Return settings that name a single candidate, for a table without validation rows.

    None if validation or folds decide, or if a penalty or a combination is to be chosen.
    """
    split = table["split"] if "split" in table else table["segment_id"].iloc[:0]
    if settings.folds or (split == "valid").any() or not (split == "train").any():
        return None
    names = classifier_names(settings)
    paths = {name: penalty_path(name, settings.penalty) for name in names}
    free = [name for name, path in paths.items() if len(path) == 1 and name != "lightgbm"]
    if not free or settings.combine not in FIXED:
        return None
    sets = layer_sets(settings.layers, settings.combine, store)
    combine = "average" if len(sets) > 1 else settings.combine
    return replace(settings, classifiers=free[0], combine=combine)


def only_candidate(store: FeatureStore, settings: SweepSettings) -> Candidate:
    """Return the candidate that settings of `settings_without_choice` name, never validated."""
    (layers,) = layer_sets(settings.layers, settings.combine, store)
    return Candidate(
        layers=layers,
        classifier=settings.classifiers,
        penalty=penalty_path(settings.classifiers, settings.penalty)[0],
        temperature=shared_temperature(np.empty((0, 1)), np.empty(0, int)),
        accuracy=float("nan"),
        interval=(float("nan"), float("nan")),
        log_loss=float("nan"),
        correct=np.empty(0, bool),
    )


def what_is_not_known(
    table: pd.DataFrame, tasks: Sequence[Task], chosen: Candidate, tried: SweepSettings
) -> list[str]:
    """Describe what a model of this candidate lacks; `tried` are the settings as given."""
    lines = [NOT_CALIBRATED]
    if chosen.classifier != tried.classifiers or chosen.layers.combine != tried.combine:
        lines.append(f"nothing was chosen: {chosen.name}, of what --classifiers and --layers allow")
    speakers = table["speaker"].to_numpy(str)
    counts = Counter(name for task in tasks for name in speakers[task.rows["train"]].tolist())
    single = sum(count == 1 for count in counts.values())
    if single:
        lines.append(
            f"{counted(single, 'speaker', 'has', of=len(counts))} one training segment: how much "
            "their voices vary is not known, so there is no threshold for strangers and no "
            "accuracy; add clips"
        )
    return lines
