"""Write the files of an audit: all turns, proposed corrections, settings, a page to listen by.

``audit.csv`` has a row per turn (`findings.COLUMNS`); ``corrections.csv`` is input for
``spk-manifests correct``, to be edited first; ``audit.json`` records how both were made. All files
are drafted first: if one of them may not be replaced, none is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.files import atomic_write
from ...common.outputs import check_own_folder, has_to_be_written, protecting
from ...manifests.corrections import COLUMNS as NEEDED
from ...manifests.corrections import FINGERPRINT, fingerprint
from .findings import KINDS, Audit
from .page import audit_page
from .trial import RATE

if TYPE_CHECKING:
    import pandas as pd

MARK = "audit.json"
TURNS, CORRECTIONS, PAGE = "audit.csv", "corrections.csv", "audit.html"
WRITTEN = (TURNS, CORRECTIONS, PAGE)
PLACES = ("jobs", "shown", "audio_root")  # options that do not affect results
DIGITS = 4  # decimals of probabilities and seconds
EVIDENCE = ("kind", "probability", "quality", "rank", "start", "end")


def check_audit_folder(folder: Path) -> None:
    """Refuse a folder with other people's files, before anything is made there.

    Raises
    ------
    InputError
        It has files of the names that an audit writes, but no ``audit.json``.
    """
    check_own_folder(folder, MARK, WRITTEN)


def write_audit(audit: Audit, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write an audit to a folder, all of it or nothing; return the files written.

    Raises
    ------
    InputError
        The folder has other content, or cannot be written.
    """
    folder = Path(folder)
    check_audit_folder(folder)
    contents = {
        MARK: _json(described(audit)),
        TURNS: _csv(audit.turns.round(dict.fromkeys(_numbers(audit.turns), DIGITS))),
        CORRECTIONS: _csv(corrections(audit)),
        PAGE: audit_page(audit).encode(),
    }
    with protecting([] if overwrite else [folder]):
        for name, content in contents.items():
            has_to_be_written(folder / name, content)
    for name, content in contents.items():
        atomic_write(folder / name, content)
    return [folder / name for name in contents]


def corrections(audit: Audit) -> pd.DataFrame:
    """Return the proposed corrections, as `manifests.corrections` reads them."""
    rows = audit.turns[audit.turns["proposed"]][[*NEEDED, *EVIDENCE]]
    rows = rows.assign(**{FINGERPRINT: fingerprint(audit.table)})
    return rows.round(dict.fromkeys(_numbers(rows), DIGITS))


def described(audit: Audit) -> dict[str, Any]:
    """Return an audit's settings and rates, as written to ``audit.json``."""
    from importlib.metadata import version

    config, trial, turns = audit.store.config, audit.trial, audit.turns
    judged = turns["quality"].notna()
    hours = float((turns["end"] - turns["start"])[judged].sum()) / 3600
    return {
        "table": fingerprint(audit.table),
        "encoder": {k: config.get(k) for k in ("encoder", "revision", "untrained", "trained_on")},
        "learner": {
            "layers": list(audit.learner.layers.layers),
            "combine": audit.learner.layers.combine,
            "classifier": audit.learner.classifier,
            "penalty": audit.learner.penalty,
        },
        "options": {k: v for k, v in asdict(audit.options).items() if k not in PLACES},
        "turns": len(turns),
        "judged": int(judged.sum()),
        "hours": round(hours, DIGITS),
        "accuracy": round(audit.accuracy, DIGITS),
        "trial": {
            **asdict(trial),
            "rate": RATE,
            "recall": _rounded(trial.recall),
            "precision": _rounded(trial.precision),
            "carries": trial.carries,
        },
        "kinds": {kind: int((turns["kind"] == kind).sum()) for kind in KINDS},
        "proposed": int(turns["proposed"].sum()),
        "looked_for": {"two voices": audit.listened, "exchanged session": audit.related},
        "versions": {name: version(name) for name in ("spk-toolkit", "cleanlab")},
    }


def _rounded(share: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), (round(x, DIGITS) for x in share), strict=True))


def _numbers(table: pd.DataFrame) -> list[str]:
    return [name for name in table if table[name].dtype == "float64"]


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()
