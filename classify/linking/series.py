"""Find ids that are not one person in all sessions of a series.

In AISHELL-4, an id within sessions of one date and room is almost always one person, and merging
labels by series relies on this. If the voices disagree, each label of the id is reported, with its
person and the probability that it differs from the other labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from ..naming.decision import rounded_down
from .labels import Labels

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("series", "speaker", "session", "person", "agree", "others", "probability")


def disputed_ids(
    labels: Labels,
    log_odds: np.ndarray,
    clusters: np.ndarray,
    rows: pd.DataFrame,
    min_probability: float,
) -> pd.DataFrame:
    """Return a row for each label of an id that is several people in its series.

    Parameters
    ----------
    log_odds : (n, n) float
        That two labels are one person.
    clusters : (n,) int
    rows
        Columns `session`, `speaker`, `person` of all labels.
    min_probability
        Of not being one person; at least one label of the id must reach it.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`: `agree` of the `others` sessions with this id in the series have the
        same person; `probability` is that the label is none of those that disagree.
    """
    import pandas as pd

    persons = rows.set_index(["session", "speaker"])["person"].to_dict()
    groups: dict[tuple[str, str], list[int]] = {}
    for number, key in enumerate(zip(labels.series, labels.speakers, strict=True)):
        if key[0]:
            groups.setdefault((str(key[0]), str(key[1])), []).append(number)
    disputed = []
    for key, members in sorted(groups.items()):
        doubts = [_label_row(k, members, log_odds, clusters) for k in members]
        if len({*clusters[members].tolist()}) > 1 and max(p for _, p in doubts) >= min_probability:
            disputed += [
                (
                    *key,
                    labels.pairs[k][0],
                    persons.get(labels.pairs[k], ""),
                    agree,
                    len(members) - 1,
                    rounded_down(chance, 4),
                )
                for k, (agree, chance) in zip(members, doubts, strict=True)
            ]
    return pd.DataFrame(disputed, columns=list(COLUMNS))


def _label_row(
    label: int, members: list[int], log_odds: np.ndarray, clusters: np.ndarray
) -> tuple[int, float]:
    """Return how many others of the id are the same person, and how surely the rest differ."""
    others = np.array([k for k in members if k != label], dtype=int)
    agree = clusters[others] == clusters[label]
    rest = others[~agree]
    chance = float(1 - expit(log_odds[label, rest].max())) if len(rest) else 0.0
    return int(agree.sum()), chance
