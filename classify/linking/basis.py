"""The basis of a result: how well the encoder tells people apart, and what calibrated the scores.

Only known people are named if d' is below `WEAKEST`, if there are too few pairs to measure it, or
if nobody is known and no pairs stand out from the others: then either nobody occurs twice, or the
encoder cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from .calibration import PairCalibration
from .pairs import ENOUGH, FEW, HALVES, IDENTITY, SERIES, Pairs, Separation

WEAKEST = 3.0  # d'; for two normal distributions, an equal-error rate of 6.7 %
STANDS_OUT = 4.0  # deviations between the two distributions of scores, if nobody is known
NOTHING = "nothing"
WEAK, UNTOLD, ALIKE = "weak encoder", "too few pairs", "nobody stands out"
WHY = {
    WEAK: f"the encoder is too weak to link people (d' below {WEAKEST:g})",
    UNTOLD: "there are too few pairs to tell whether the encoder can link people (d' unknown)",
    ALIKE: "no pairs of labels stand out: nobody is there twice, or the encoder cannot tell",
}


@dataclass(frozen=True)
class Basis:
    """The basis of a result.

    Attributes
    ----------
    separation : Separation
        How well scores tell people apart.
    calibrated_on : str
        `IDENTITY`, `SERIES` or `NOTHING`.
    expected : float
        Expected number of pairs that are one person, by their probabilities.
    heaps : float
        Distance of the two fitted distributions of scores, in deviations.
    """

    separation: Separation
    calibrated_on: str
    expected: float
    heaps: float

    @property
    def reason(self) -> str:
        """Return the key of `WHY` if only known people are named; otherwise ""."""
        if not self.separation.of:
            return UNTOLD
        if not self.separation.d_prime >= WEAKEST:
            return WEAK
        if self.calibrated_on == NOTHING and (self.expected < FEW or self.heaps < STANDS_OUT):
            return ALIKE
        return ""

    @property
    def weakness(self) -> str:
        """Return why only known people are named; otherwise ""."""
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
    """Return the basis of a calibration."""
    calibrated_on = NOTHING
    if same_id > 0 and pairs.same_id.sum() >= FEW:
        calibrated_on = SERIES
    if (pairs.truth == 1).sum() >= ENOUGH:
        calibrated_on = IDENTITY
    expected = float(np.sum(expit(learnt.log_odds)))
    return Basis(separation, calibrated_on, expected, learnt.model.d_prime)
