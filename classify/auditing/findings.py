"""The findings of an audit: kinds of errors, the table of turns, and how they were found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...common.counts import counted
from ...extract.store.reader import FeatureStore
from .held_out import Learner
from .options import AuditOptions
from .trial import Trial

if TYPE_CHECKING:
    import pandas as pd

SWAP, EXCHANGE, SESSION = "swap", "exchange", "exchanged session"
OUTLIER, TWO = "outlier", "two voices"
KINDS = (SWAP, EXCHANGE, SESSION, OUTLIER, TWO)
COLUMNS = {  # of the table that `audit` returns
    "segment_id": "",
    "session": "",
    "start": np.nan,
    "end": np.nan,
    "labelled": "",
    "suggested": "",
    "probability": np.nan,
    "labelled_probability": np.nan,
    "quality": np.nan,
    "rank": np.nan,
    "issue": False,
    "kind": "",
    "proposed": False,
    "fit": np.nan,
    "two_voices": np.nan,
    "scores": "",
    "reason": "",
}


@dataclass(frozen=True, eq=False)
class Audit:
    """The findings of an audit.

    Attributes
    ----------
    turns : DataFrame
        Columns `COLUMNS`, a row per turn of the table, the most doubtful label first.
    table : segment table
        As given.
    trial : Trial
        How many planted errors were found.
    accuracy : float
        Share of judged turns whose most probable speaker is the label.
    """

    turns: pd.DataFrame
    table: pd.DataFrame
    options: AuditOptions
    learner: Learner
    store: FeatureStore
    trial: Trial
    accuracy: float
    listened: bool
    related: bool

    def __repr__(self) -> str:
        """Return how many turns were judged, in one line."""
        judged = counted(len(self.turns) - len(self.left_out), "turn", of=len(self.turns))
        proposed = counted(int(self.turns["proposed"].sum()), "correction")
        return f"<Audit {judged} judged, {proposed} proposed>"

    @property
    def left_out(self) -> pd.DataFrame:
        """Return the turns that could not be judged: `segment_id, session, reason`."""
        rows = self.turns[self.turns["reason"] != ""]
        return rows[["segment_id", "session", "reason"]].reset_index(drop=True)
