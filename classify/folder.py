"""A model as a folder without pickle: JSON, ``arrays.npz``, LightGBM text; whole or not there.

``model.json`` says what the model is, which file holds what, and the SHA-256 of each file;
``arrays.npz`` holds ``<number>.mean``, ``.scale``, ``.weights``, ``.intercept`` of each classifier
(float64), ``<number>.txt`` its trees.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..manifests.table import InputError, write_whole
from .classifiers import Fitted
from .data import LayerSet
from .model import Model

SCHEMA = 1
ARRAYS = ("mean", "scale", "weights", "intercept")


def save_model(model: Model, path: str | Path) -> None:
    """Write a model folder; it appears under its name only when complete.

    Raises
    ------
    InputError
        Something of this name is there.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path}: exists, expected no such folder; name another or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        for name, content in _files(model).items():
            write_whole(draft / name, content)
        draft.chmod(0o755)
        os.rename(draft, path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _files(model: Model) -> dict[str, bytes]:
    arrays, files = {}, {}
    for number, fitted in enumerate(model.fitted.values()):
        arrays.update({f"{number}.{name}": getattr(fitted, name) for name in ARRAYS})
        if fitted.booster:
            files[f"{number}.txt"] = fitted.booster.encode()
    image = io.BytesIO()
    np.savez(image, **arrays)
    files["arrays.npz"] = image.getvalue()
    description = _description(model)
    description["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    text = json.dumps(description, indent=1, ensure_ascii=False)
    return {**files, "model.json": text.encode()}


def _description(model: Model) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "classifier": model.classifier,
        "penalty": model.penalty,
        "layers": list(model.layers.layers),
        "combine": model.layers.combine,
        "pooling_part": model.part,
        "within": model.within,
        "temperature": model.temperature,
        "fitted": [
            {"name": name, "kind": fitted.kind, "labels": list(fitted.labels)}
            for name, fitted in model.fitted.items()
        ],
        "config": dict(model.config),
        "origin": dict(model.origin),
    }


def load_model(path: str | Path) -> Model:
    """Read a model folder written by `save_model`.

    Raises
    ------
    InputError
        It is not a model folder, of another schema, or a file is missing or was changed.
    """
    path = Path(path)
    try:
        description = json.loads(_read(path, "model.json"))
        if description["schema"] != SCHEMA:
            raise InputError(
                f"{path}: schema is {description['schema']!r}, expected {SCHEMA}; fit it again"
            )
        files = {name: _checked(path, name, sha) for name, sha in description["sha256"].items()}
        with np.load(io.BytesIO(files["arrays.npz"]), allow_pickle=False) as arrays:
            fitted = {
                entry["name"]: _fitted(entry, number, arrays, files)
                for number, entry in enumerate(description["fitted"])
            }
        return _model(description, fitted)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as problem:
        raise InputError(
            f"{path}: is not a model ({problem!r}), expected what spk-classify fit writes; "
            "fit it again"
        ) from problem


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as problem:
        raise InputError(
            f"{path}: {name!r} cannot be read ({problem.strerror}), expected a model folder; "
            "make it with spk-classify fit"
        ) from None


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
) -> Fitted:
    booster = files[f"{number}.txt"].decode() if entry["kind"] == "trees" else ""
    values = {name: arrays[f"{number}.{name}"] for name in ARRAYS}
    return Fitted(kind=entry["kind"], labels=tuple(entry["labels"]), booster=booster, **values)


def _model(description: Mapping[str, Any], fitted: dict[str, Fitted]) -> Model:
    return Model(
        classifier=description["classifier"],
        penalty=description["penalty"],
        layers=LayerSet(tuple(description["layers"]), description["combine"]),
        part=description["pooling_part"],
        within=description["within"],
        temperature=description["temperature"],
        fitted=fitted,
        config=description["config"],
        origin=description["origin"],
    )
