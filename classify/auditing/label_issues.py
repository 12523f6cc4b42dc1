"""Confident learning on held-out probabilities: which labels are probably wrong, and who fits.

Turns are ranked by cleanlab's normalised margin, the probability of the label minus that of the
most probable other speaker. If it is negative, it is multiplied by the square root of the turn's
length as a share of 3 s, at most 1, since a recogniser can be sure and wrong about short turns.
Both were chosen on meetings composed of single voices (`docs/how-to/audit.md`). Cleanlab's
confident learning determines how many turns of a session are suspected.

A turn fits nobody if its cosine with the nearest speaker is far below that of other turns of its
length; short turns fit everybody less, so the median is taken as a function of log seconds.

Source: Northcutt, Jiang and Chuang (2021), Confident learning, JAIR 70 (``prune_by_noise_rate``).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .held_out import Judged
from .options import AuditOptions

if TYPE_CHECKING:
    import pandas as pd

FAR = 3.0  # robust standard deviations below the usual value for turns of that length
LEAST_SECONDS = 1.0  # s; shorter turns fit nobody well, and are not called outliers
ENOUGH_SECONDS = 3.0  # s; more speech makes the speaker no clearer
FEWEST_TURNS = 10  # to determine what is usual in a session
NORMAL = 1.4826  # standard deviation of a normal distribution, in median absolute deviations


@dataclass(frozen=True, eq=False)
class Issues:
    """The evidence of a session's judged turns (n,) on their labels.

    Attributes
    ----------
    quality : (n,) float64
        0 (wrong) to 1 (right); NaN if the label was not judged.
    suspect : (n,) bool
        Cleanlab's label issues.
    better : (n,) int
        The most probable speaker other than the label.
    probability : (n,) float64
        Of `better`.
    fit : (n,) float
        Cosine with the nearest speaker, held out.
    outlier : (n,) bool
        Fits nobody.
    seconds : (n,) float
    """

    quality: np.ndarray
    suspect: np.ndarray
    better: np.ndarray
    probability: np.ndarray
    fit: np.ndarray
    outlier: np.ndarray
    seconds: np.ndarray

    def proposed(self, options: AuditOptions) -> np.ndarray:
        """Return where another name is proposed (n,) bool: suspect, probable, long and near."""
        sure = self.suspect & (self.probability >= options.min_probability)
        return sure & (self.seconds >= options.min_seconds) & ~self.outlier


def find_issues(judged: Judged, fit: np.ndarray, seconds: np.ndarray) -> Issues:
    """Return the evidence of a session's turns on their labels.

    Parameters
    ----------
    fit : (n,) float
        Cosine of each turn with the nearest speaker, held out.
    seconds : (n,) float, > 0
    """
    usable = np.flatnonzero(judged.codes >= 0)
    quality = np.full(len(judged.rows), np.nan)
    suspect = np.zeros(len(judged.rows), bool)
    if len(usable):
        quality[usable], suspect[usable] = _confident_learning(
            judged.codes[usable], judged.chances[usable]
        )
    others = judged.others
    return Issues(
        quality,
        suspect,
        others.argmax(axis=1),
        others.max(axis=1),
        fit,
        fits_nobody(fit, seconds),
        seconds,
    )


def _confident_learning(codes: np.ndarray, chances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return cleanlab's quality (n,) and issues (n,) bool of the labels that occur."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on labels without turns, which are never suggested
        quality = get_label_quality_scores(codes, chances, method="normalized_margin")
        several = len(np.unique(codes)) > 1  # cleanlab needs at least two labels
        suspect = find_label_issues(codes, chances, n_jobs=1) if several else np.zeros(len(codes))
    return quality, np.asarray(suspect, bool)


def doubt(quality: pd.Series, seconds: pd.Series) -> pd.Series:
    """Return how much better another speaker fits, -1 to 1; positive values weighted by length.

    >>> import pandas as pd
    >>> doubt(pd.Series([0.0, 0.0, 1.0]), pd.Series([3.0, 0.75, 0.75])).tolist()
    [1.0, 0.5, -1.0]
    """
    margin = 1 - 2 * quality
    weight = np.sqrt((seconds / ENOUGH_SECONDS).clip(upper=1))
    return margin.where(margin <= 0, margin * weight)


def fits_nobody(fit: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Return which turns (n,) bool lie `FAR` below the usual fit for their length.

    >>> fit = np.append(np.linspace(0.6, 0.7, 20), -0.2)
    >>> fits_nobody(fit, np.full(21, 3.0)).nonzero()[0]
    array([20])
    """
    usable = np.isfinite(fit) & (seconds >= LEAST_SECONDS)
    far = np.zeros(len(fit), bool)
    if usable.sum() < FEWEST_TURNS:
        return far
    length = np.log(seconds[usable])
    slope = np.polyfit(length, fit[usable], 1)[0] if np.ptp(length) > 0 else 0.0
    rest = fit[usable] - max(slope, 0.0) * length
    rest = rest - np.median(rest)
    usual = NORMAL * np.median(np.abs(rest))
    far[usable] = rest < -FAR * usual
    return far
