"""Save and load a model as a folder, written atomically and without pickle.

``model.json`` describes the model and holds the SHA-256 of each file; ``arrays.npz`` has
``<number>.mean``, ``.scale``, ``.weights``, ``.intercept`` (float64) and, in older folders,
``.knots`` of each classifier; ``<number>.txt`` its LightGBM trees; ``learnt.csv`` the training
rows.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.errors import InputError, explain_write_errors
from ..common.files import atomic_write, replace_folder
from ..common.names import normal_name, normal_names
from ..manifests.splits.tasks import WITHIN
from .classifiers.boosted_trees import check_trees
from .classifiers.calibration import CALIBRATIONS
from .classifiers.fitted import FittedClassifier
from .classifiers.registry import PENALTIES
from .features import COMBINE, MIX, PARTS, STANDARDISE, LayerSet
from .options import SweepSettings
from .selection.candidates import classifier_names
from .selection.prepare import LEFT_OUT_FILE
from .speaker_model import SpeakerModel
from .validity import LEARNT_COLUMNS, USES

if TYPE_CHECKING:
    import pandas as pd


SCHEMA = 1
LARGEST = 1 << 30  # bytes of one file, which is read into memory
LEARNT = "learnt.csv"
# for folders of versions without curves, mixes, a choice of standardisation, own temperatures
DEFAULTS = {"calibration": "temperature", "weights": [], "standardise": "yes", "temperatures": {}}
ARRAYS = ("mean", "scale", "weights", "intercept")


def save_model(
    model: SpeakerModel,
    path: str | Path,
    left_out: pd.DataFrame | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a model folder, which appears under its name only when complete.

    `left_out` (`segment_id, session, reason`), the rows that could not be used, is written as
    ``left_out.csv``. With `overwrite` another model is replaced; anything else of this name raises
    `InputError`.
    """
    path = Path(path)
    check_replaceable(path, overwrite=overwrite)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        files = _files(model, left_out)
        for name, content in files.items():
            atomic_write(draft / name, content)
        check_replaceable(path, overwrite=overwrite)  # it may have been written meanwhile
        if not overwrite and path.is_dir() and any(path.iterdir()):
            _check_same(path, files)
        else:
            with explain_write_errors(path):
                draft.chmod(0o755)
            replace_folder(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_replaceable(path: str | Path, *, overwrite: bool) -> None:
    """Raise `InputError` if `path` exists and is no model; called before hours of fitting.

    A model folder holds nothing but what ``model.json`` lists; anything more belongs to the user.
    """
    path = Path(path)
    if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        ours = {"model.json", *json.loads(_read(path, "model.json"))["sha256"]}
    except (InputError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{path}: exists and is no model, expected no such folder; name another"
        ) from None
    strange = sorted({file.name for file in path.iterdir()} - ours)
    if strange and overwrite:
        raise InputError(
            f"{path}: holds {strange[0]!r}, which is not of the model there, expected none; move "
            "it away, or name another folder"
        )


def _check_same(path: Path, files: Mapping[str, bytes]) -> None:
    """Check that a folder holds these files with this content."""
    there = {name: (path / name).read_bytes() for name in files if (path / name).is_file()}
    if there != files:
        raise other_content(path)


def other_content(path: Path) -> InputError:
    """Return the error for a folder that holds another model."""
    return InputError(
        f"{path}: exists with other content, expected no such folder; pass --overwrite or name "
        "another folder"
    )


def check_foretold(path: str | Path, foretold: Mapping[str, Any], settings: SweepSettings) -> None:
    """Check that a folder's model can be the one that is about to be fitted.

    `foretold` is the result of `speaker_model.foretell` for `settings`.
    """
    path = Path(path)
    if not path.is_dir() or not any(path.iterdir()):
        return
    there = load_model(path)
    same = there.classifier in classifier_names(settings)
    same &= settings.penalty in (None, there.penalty)
    same &= there.layers in foretold["layers"]
    for name in ("part", "within", "config", "origin"):
        same &= getattr(there, name) == json.loads(json.dumps(foretold[name]))
    same &= there.learnt is not None and there.learnt.equals(_learnt(_csv(foretold["learnt"])))
    if not same:
        raise other_content(path)


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _files(model: SpeakerModel, left_out: pd.DataFrame | None) -> dict[str, bytes]:
    arrays, files = {}, {}
    for number, (task, fitted) in enumerate(model.fitted.items()):
        arrays.update({f"{number}.{name}": getattr(fitted, name) for name in ARRAYS})
        if model.knots:
            arrays[f"{number}.knots"] = model.knots[task]
        if fitted.booster:
            files[f"{number}.txt"] = fitted.booster.encode()
    image = io.BytesIO()
    np.savez(image, **arrays)
    files["arrays.npz"] = image.getvalue()
    if model.learnt is not None:
        files[LEARNT] = _csv(model.learnt)
    if left_out is not None and len(left_out):
        files[LEFT_OUT_FILE] = _csv(left_out)
    description = _description(model)
    description["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    text = json.dumps(description, indent=1, ensure_ascii=False)
    return {**files, "model.json": text.encode()}


def _description(model: SpeakerModel) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "classifier": model.classifier,
        "penalty": model.penalty,
        **model.layers.to_dict(),
        "pooling_part": model.part,
        "within": model.within,
        "temperature": model.temperature,
        "temperatures": dict(model.temperatures),
        "calibration": "isotonic" if model.knots else "temperature",
        "fitted": [
            {"name": name, "kind": fitted.kind, "labels": list(fitted.labels)}
            for name, fitted in model.fitted.items()
        ],
        "config": dict(model.config),
        "origin": dict(model.origin),
    }


def load_model(path: str | Path) -> SpeakerModel:
    """Read a model folder written by `save_model`.

    Raises
    ------
    InputError
        It is not a model folder or of another schema, a file is missing or was changed, or its
        content is not what `save_model` writes. Folders from untrusted sources are safe to load.
    """
    path = Path(path)
    try:
        description = json.loads(_read(path, "model.json"))
        if description["schema"] != SCHEMA:
            raise InputError(
                f"{path}: schema is {description['schema']!r}, expected {SCHEMA}; fit it again"
            )
        description = DEFAULTS | description
        files = {name: _checked(path, name, sha) for name, sha in description["sha256"].items()}
        _check_uncompressed(files["arrays.npz"])
        with np.load(io.BytesIO(files["arrays.npz"]), allow_pickle=False) as arrays:
            fitted = {
                normal_name(entry["name"]): _fitted(entry, number, arrays, files)
                for number, entry in enumerate(description["fitted"])
            }
            curved = fitted if description["calibration"] == "isotonic" else {}
            knots = {
                name: _knots(arrays[f"{number}.knots"], len(fitted[name].labels))
                for number, name in enumerate(curved)
            }
        learnt = _learnt(files[LEARNT]) if LEARNT in files else None
        return _model(description, fitted, knots, learnt)
    except InputError:
        raise
    except Exception as problem:  # json, zip and numpy raise a dozen kinds for a damaged file
        raise InputError(
            f"{path}: is not a model ({problem!r}), expected what spk-classify fit writes; "
            "fit it again"
        ) from problem


def _read(path: Path, name: str) -> bytes:
    try:
        with (path / name).open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as problem:
        raise InputError(
            f"{path}: {name!r} cannot be read ({problem.strerror}), expected a model folder; "
            "make it with spk-classify fit"
        ) from None
    if len(content) > LARGEST:
        raise InputError(
            f"{path}: {name!r} has over {LARGEST} bytes, expected a model's; fit it again"
        )
    return content


def _check_uncompressed(archive: bytes) -> None:
    """Check that no array is compressed, and so larger in memory than on disk."""
    with zipfile.ZipFile(io.BytesIO(archive)) as names:
        for entry in names.infolist():
            _need(entry.compress_type == zipfile.ZIP_STORED, "compressed array", entry.filename)


def _checked(path: Path, name: str, sha256: str) -> bytes:
    if Path(name).name != name:
        raise InputError(f"{path}: file name is {name!r}, expected no folder; fit it again")
    content = _read(path, name)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(
            f"{path}: {name!r} has another SHA-256 than model.json says, expected {sha256!r}; "
            "fit it again"
        )
    return content


def _fitted(
    entry: Mapping[str, Any], number: int, arrays: Mapping[str, np.ndarray], files: dict[str, bytes]
) -> FittedClassifier:
    values = {name: arrays[f"{number}.{name}"] for name in ARRAYS}
    kind, labels = entry["kind"], normal_names(entry["labels"])
    _need(_texts(labels) and len(labels) > 1, "labels", labels)
    booster = files[f"{number}.txt"].decode() if kind == "trees" else ""
    if kind == "trees":
        check_trees(booster, len(labels), len(values["weights"]))
    _check_arrays(values, len(labels), trees=kind == "trees")
    return FittedClassifier(kind=kind, labels=tuple(labels), booster=booster, **values)


def _check_arrays(values: Mapping[str, np.ndarray], labels: int, *, trees: bool) -> None:
    rows, width = len(values["weights"]) if trees else labels, values["mean"].size
    shapes = {"mean": (width,), "scale": (width,), "weights": (rows, width), "intercept": (labels,)}
    for name, shape in shapes.items():
        value = values[name]
        _need(value.dtype == np.float64, f"type of {name}", value.dtype)
        _need(value.shape == shape, f"shape of {name}", value.shape)
        _need(bool(np.isfinite(value).all()), name, "not finite")
    _need(bool((values["scale"] > 0).all()), "scale", "not above 0")


def _knots(knots: np.ndarray, labels: int) -> np.ndarray:
    """Return `knots` after checking that they are one rising curve of probabilities per label."""
    _need(knots.dtype == np.float64 and knots.ndim == 2 and knots.shape[1] == 3, "knots", "type")
    numbers = np.unique(knots[:, 0])
    _need(np.array_equal(numbers, np.arange(labels)), "labels of knots", numbers)
    _need(bool(((knots[:, 1:] >= 0) & (knots[:, 1:] <= 1)).all()), "knots", "not 0 to 1")
    same = np.diff(knots[:, 0]) == 0
    _need(bool((np.diff(knots, axis=0)[same] >= 0).all()), "knots", "not rising")
    return knots


def _learnt(content: bytes) -> pd.DataFrame:
    """Return the rows of ``learnt.csv`` after checking them."""
    import pandas as pd

    rows = pd.read_csv(io.BytesIO(content), dtype="str", keep_default_na=False)
    _need(tuple(rows.columns) == LEARNT_COLUMNS, "columns of learnt rows", list(rows.columns))
    rows = rows.astype({"start": "float64", "end": "float64"})
    _need(bool(rows["split"].isin(USES).all()), "splits of learnt rows", set(rows["split"]))
    finite = np.isfinite(rows[["start", "end"]].to_numpy()).all()
    _need(bool(finite), "times of learnt rows", "not finite")
    return rows


def _need(condition: bool, what: str, value: object) -> None:
    if not condition:
        raise ValueError(f"{what}: {str(value)[:80]}")


def _texts(values: object) -> bool:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return False
    return len(set(values)) == len(values)


def _check_description(
    description: Mapping[str, Any], fitted: Mapping[str, FittedClassifier]
) -> None:
    """Check that types and ranges are those that `save_model` writes."""
    choices = {
        "classifier": tuple(PENALTIES),
        "calibration": CALIBRATIONS,
        "combine": (*COMBINE, MIX),
        "pooling_part": PARTS,
        "standardise": STANDARDISE,
        "within": WITHIN,
    }
    for key, expected in choices.items():
        _need(description[key] in expected, key, description[key])
    numbers = {**description["temperatures"], "temperature": description["temperature"]}
    numbers |= {} if description["penalty"] is None else {"penalty": description["penalty"]}
    for key, number in numbers.items():
        _need(type(number) in (int, float) and 0 < number < np.inf, key, number)
    layers, config, origin = description["layers"], description["config"], description["origin"]
    whole = isinstance(layers, list) and all(type(layer) is int for layer in layers)
    count = len(layers) == 1 if description["combine"] == "alone" else len(layers) > 0
    _need(whole and count, "layers", layers)
    _check_weights(description["weights"], len(layers) if description["combine"] == MIX else 0)
    _need(isinstance(config, dict), "config", config)
    _need(isinstance(origin, dict) and isinstance(origin["split"], str), "origin", origin)
    names = normal_names([entry["name"] for entry in description["fitted"]])
    _need(bool(fitted) and _texts(names), "fitted", "names")


def _check_weights(weights: object, count: int) -> None:
    numbers = isinstance(weights, list) and all(type(weight) is float for weight in weights)
    _need(isinstance(weights, list) and numbers and len(weights) == count, "weights", weights)
    if isinstance(weights, list) and weights:
        _need(min(weights) > 0 and abs(sum(weights) - 1) < 1e-6, "weights", weights)


def _check_kinds(description: Mapping[str, Any], fitted: Mapping[str, FittedClassifier]) -> None:
    """Check that the classifiers' kind and features are those of the description."""
    config, kinds = description["config"], {"centroid": "cosine", "lightgbm": "trees"}
    whole = description["pooling_part"] in ("both", config["pooling"])
    width = config["dim"] if whole else config["dim"] // 2
    width *= len(description["layers"]) if description["combine"] in ("concat", MIX) else 1
    expected = (kinds.get(description["classifier"], "linear"), width)
    for name, classifier in fitted.items():
        even = description["standardise"] != "no" or len(np.unique(classifier.scale)) == 1
        _need(even, name, "not divided by one number")
        # Weights of zero say nothing about the kind.
        kind = classifier.kind if classifier.weights.any() else expected[0]
        _need(
            (kind, len(classifier.mean)) == expected,
            name,
            f"{classifier.kind} of {len(classifier.mean)}",
        )


def _model(
    description: Mapping[str, Any],
    fitted: dict[str, FittedClassifier],
    knots: dict[str, np.ndarray],
    learnt: pd.DataFrame | None,
) -> SpeakerModel:
    _check_description(description, fitted)
    _check_kinds(description, fitted)
    return SpeakerModel(
        classifier=description["classifier"],
        penalty=description["penalty"],
        layers=LayerSet.from_dict(description),
        part=description["pooling_part"],
        within=description["within"],
        temperature=description["temperature"],
        temperatures={normal_name(k): v for k, v in description["temperatures"].items()},
        fitted=fitted,
        config=description["config"],
        origin=description["origin"],
        knots=knots,
        learnt=learnt,
    )
