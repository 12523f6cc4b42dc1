"""STORE.rejected.csv: the segments that a store has no features of, and why."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ..common.files import write_whole
from .reader import FeatureStore


def rejected_listing(store: str | Path) -> str:
    """Return the name of the CSV that lists a store's rejected segments, beside the store."""
    return f"{str(store).rstrip('/')}.rejected.csv"


def list_rejected(store: str | Path) -> dict[str, str]:
    """Write STORE.rejected.csv, or remove it where nothing is rejected; return id -> code."""
    rows = FeatureStore.open(store).rejected()
    path = Path(rejected_listing(store))
    if not rows:
        path.unlink(missing_ok=True)
        return {}
    text = io.StringIO()
    sheet = csv.DictWriter(text, ("segment_id", "code", "message"), lineterminator="\n")
    sheet.writeheader()
    sheet.writerows(rows)
    write_whole(path, text.getvalue().encode())
    return {row["segment_id"]: row["code"] for row in rows}
