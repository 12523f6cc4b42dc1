"""Read back the threshold that `open_set` measured for a model, from the sweep's folder.

A threshold is valid only for the probabilities that it was measured on: same classifier, layers,
encoder, training rows and calibration. So the sweep in the folder must have chosen the model, and
``openset.csv`` must belong to the sweep as it is now.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...common.errors import InputError
from ...extract.store.layout import differing_keys
from ..features import LayerSet
from ..options import AUTO, PredictOptions
from ..selection.run_inputs import FREE_KEYS, check_sealed, run_mark
from ..speaker_model import SpeakerModel
from .sweep_choice import read_config

OPEN_SET_FILE = "openset.csv"
ORIGIN = ("split", "seed", "segments", "chosen_and_calibrated_on")


def threshold_of(
    model: SpeakerModel, *, unknown_below: str | None, run: str | None, false_accepts: float
) -> float | None:
    """Return the probability set by the options of ``spk-classify predict``, or None.

    Raises
    ------
    InputError
        ``auto`` and the sweep's folder are given one without the other, a share is given without
        ``auto``, or as for `measured_threshold`.
    """
    if (unknown_below == AUTO) != (run is not None):
        raise InputError(
            f"--unknown-below: value is {unknown_below or 'none'!r} and --run is "
            f"{run or 'none'!r}, expected auto and the folder of a sweep, or neither; pass both, "
            "or give --unknown-below a probability"
        )
    if run is None and false_accepts != PredictOptions.false_accepts:
        raise InputError(
            f"--false-accepts: value is {false_accepts:g} and --unknown-below is "
            f"{unknown_below or 'none'!r}, expected auto there; pass --unknown-below auto and "
            "--run, or leave --false-accepts out"
        )
    if run is not None:
        return measured_threshold(model, run, false_accepts)
    return None if unknown_below is None else float(unknown_below)


def measured_threshold(model: SpeakerModel, run: str | Path, false_accepts: float) -> float:
    """Return the probability below which `open_set` rejects a segment as a stranger's.

    Parameters
    ----------
    model
        Made by `spk-classify fit` from the sweep's table and store.
    run
        Folder of the sweep, including the output of `spk-classify open-set`.
    false_accepts
        The wanted share of accepted strangers; must have been measured.

    Raises
    ------
    InputError
        The folder is not a sweep's, the sweep chose another model, or has no threshold for this
        share.
    """
    config = read_config(run)
    check_sealed(run, config)
    if others := list(_differences(model, config)):
        raise InputError(
            f"{run}: the sweep chose another model than is given (its {', '.join(others)}), "
            "expected the same; name the sweep of the same table, store and choice, or give "
            "--unknown-below a probability"
        )
    rows = _measured(Path(run), config)
    for wanted, threshold in rows.items():
        if math.isclose(wanted, false_accepts) and not math.isnan(threshold):
            return threshold
    shares = ",".join(f"{wanted:g}" for wanted, number in rows.items() if not math.isnan(number))
    raise InputError(
        f"{run}: {OPEN_SET_FILE} has no threshold for --false-accepts {false_accepts:g}, expected "
        f"one of {shares or 'none'}; pass one of them, or run spk-classify open-set again with "
        f"--false-accepts {false_accepts:g}"
    )


def _differences(model: SpeakerModel, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the differences between a sweep's choice and a model; none if they are the same."""
    chosen, settings, origin = config["chosen"], config["settings"], config.get("origin", {})
    for name in ("classifier", "penalty"):
        if chosen[name] != getattr(model, name):
            yield name
    if LayerSet.from_dict(chosen) != model.layers:
        yield "layers"
    if (settings.get("within"), settings.get("pooling_part")) != (model.within, model.part):
        yield "task"
    yield from differing_keys(config["store"], model.config, free=FREE_KEYS)
    yield from (key for key in ORIGIN if origin.get(key) != model.origin.get(key))
    temperatures = {"": model.temperature, **model.temperatures}
    theirs = {"": chosen["temperature"], **chosen.get("temperatures", {})}
    if temperatures.keys() != theirs.keys() or not all(
        math.isclose(theirs[name], number, rel_tol=1e-6) for name, number in temperatures.items()
    ):
        yield "calibration"


def _measured(run: Path, config: Mapping[str, Any]) -> dict[float, float]:
    """Return {wanted share: threshold} of a sweep's ``openset.csv``."""
    import pandas as pd

    path = run / OPEN_SET_FILE
    again = "run spk-classify open-set on the sweep's table, store and folder"
    try:
        frame = pd.read_csv(path)
        thresholds = dict(zip(frame["wanted"].astype(float), frame["threshold"], strict=True))
        marks = set(frame["run"])
    except FileNotFoundError:
        raise InputError(f"{run}: holds no {OPEN_SET_FILE}, expected thresholds; {again}") from None
    except (OSError, ValueError, KeyError) as problem:
        raise InputError(
            f"{path}: cannot be read ({problem!r}), expected thresholds; {again}"
        ) from problem
    if marks != {run_mark(run, config)}:
        raise InputError(f"{path}: is of another sweep than the folder, expected its own; {again}")
    return {float(wanted): float(number) for wanted, number in thresholds.items()}
