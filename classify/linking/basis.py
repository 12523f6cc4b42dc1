"""What linked labels rest on: how well the encoder tells people apart, what calibrated scores.

Nothing is claimed of anybody who is not known where d' is below `WEAKEST`, where too few pairs tell
it, or where nobody is known and no pairs stand out from all others: then either
nobody is there twice, or the encoder cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from .calibration import PairCalibration
from .pairs import ENOUGH, FEW, HALVES, IDENTITY, SERIES, Pairs, Separation

WEAKEST = 3.0  # d'; of two normal distributions, an equal-error rate of 6.7 %
STANDS_OUT = 4.0  # deviations between two heaps of scores of which nobody is known
NOTHING = "nothing"
WEAK, UNTOLD, ALIKE = "weak encoder", "too few pairs", "nobody stands out"
WHY = {
    WEAK: f"the encoder is too weak to link people (d' below {WEAKEST:g})",
    UNTOLD: "there are too few pairs to tell whether the encoder can link people (d' unknown)",
    ALIKE: "no pairs of labels stand out: nobody is there twice, or the encoder cannot tell",
}


@dataclass(frozen=True)
class Basis:
    """What a result rests on.

    Attributes
    ----------
    separation : Separation
        How well scores tell people apart.
    calibrated_on : str
        `IDENTITY`, `SERIES` or `NOTHING`.
    expected : float
        How many pairs are one person, by their probabilities.
    heaps : float
        How many deviations the two heaps of scores lie apart, as they were learnt.
    """

    separation: Separation
    calibrated_on: str
    expected: float
    heaps: float

    @property
    def reason(self) -> str:
        """Return the key of `WHY` for which nothing is claimed; empty where something is."""
        if not self.separation.of:
            return UNTOLD
        if not self.separation.d_prime >= WEAKEST:
            return WEAK
        if self.calibrated_on == NOTHING and (self.expected < FEW or self.heaps < STANDS_OUT):
            return ALIKE
        return ""

    @property
    def weakness(self) -> str:
        """Say why nothing is claimed; empty where something is."""
        return WHY.get(self.reason, "")

    def lines(self) -> Iterator[str]:
        """Yield what the user should know before trusting the result."""
        yield f"encoder: {self.separation}"
        if self.weakness:
            yield f"{self.weakness}: nothing is claimed about anybody who is not known"
        elif self.calibrated_on == SERIES:
            yield (
                "confidence is calibrated on ids of a series, as if most were one person; some "
                "known people (--identity) would check that"
            )
        elif self.calibrated_on == NOTHING:
            yield (
                "confidence is uncalibrated: nobody is known, so it is a guess from the "
                "distribution of scores; name some people with --identity"
            )
        if self.separation.of == HALVES:
            yield "that is of halves of one recording; people are harder to tell apart across rooms"


def basis_of(
    separation: Separation, pairs: Pairs, learnt: PairCalibration, same_id: float
) -> Basis:
    """Return what a calibration rests on."""
    calibrated_on = NOTHING
    if same_id > 0 and pairs.same_id.sum() >= FEW:
        calibrated_on = SERIES
    if (pairs.truth == 1).sum() >= ENOUGH:
        calibrated_on = IDENTITY
    expected = float(np.sum(expit(learnt.log_odds)))
    return Basis(separation, calibrated_on, expected, learnt.model.d_prime)
