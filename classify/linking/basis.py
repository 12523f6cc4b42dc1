"""What linked labels rest on: how well the encoder tells people apart, what calibrated scores.

Nothing is claimed of anybody who is not known where the equal-error rate is above `WEAKEST`, where
too few pairs tell it, or where nobody is known and no pairs stand out from all others: then either
nobody is there twice, or the encoder cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from .calibration import PairCalibration
from .pairs import FEW, HALVES, IDENTITY, SERIES, Pairs, Separation

WEAKEST = 0.1  # equal-error rate
NOTHING = "nothing"


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
    """

    separation: Separation
    calibrated_on: str
    expected: float

    @property
    def weakness(self) -> str:
        """Say why nothing is claimed; empty where something is."""
        if not self.separation.eer <= WEAKEST:
            limit = f"above {100 * WEAKEST:g} %" if self.separation.of else "unknown"
            return f"the encoder is too weak to link people (equal-error rate {limit})"
        if self.calibrated_on == NOTHING and self.expected < FEW:
            return (
                "no pairs of labels stand out, so that nobody is there twice or the encoder cannot "
                "tell"
            )
        return ""

    def lines(self) -> Iterator[str]:
        """Yield what the user should know before trusting the result."""
        yield f"encoder: {self.separation}"
        if self.weakness:
            yield f"{self.weakness}: nothing is claimed of anybody who is not known"
        elif self.calibrated_on == SERIES:
            yield (
                "confidence is calibrated on ids of a series, as if most were one person; some "
                "known people (--identity) would check that"
            )
        elif self.calibrated_on == NOTHING:
            yield (
                "confidence is uncalibrated: nobody is known, and it is a guess from how scores "
                "lie; name some people with --identity"
            )
        if self.separation.of == HALVES:
            yield "the error rate is of halves of one recording, between rooms it is higher"


def basis_of(
    separation: Separation, pairs: Pairs, learnt: PairCalibration, same_id: float
) -> Basis:
    """Return what a calibration rests on."""
    calibrated_on = NOTHING
    if same_id > 0 and pairs.same_id.sum() >= FEW:
        calibrated_on = SERIES
    if (pairs.truth == 1).sum() >= FEW:
        calibrated_on = IDENTITY
    return Basis(separation, calibrated_on, float(np.sum(expit(learnt.log_odds))))
