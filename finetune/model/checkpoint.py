"""Load checkpoints, rebuild their models, and predict with them.

Checkpoints are Lightning's, read with ``weights_only``: the `spk` entry holds the task, labels,
encoder, settings and temperature; the tensors are only those that were trained. The rest comes from
the named encoder, which is refused if its weights differ.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...classify.classifiers.calibration import probabilities
from ...common.counts import agree, counted
from ...common.errors import InputError
from ...common.names import normal_names
from ...extract.encoder.checkpoint import BUILT_IN
from ...extract.encoder.device import choose_dtype
from ...extract.encoder.loading import load_encoder_parts
from ...extract.encoder.preprocessing import NORMALIZE
from ...extract.encoder.untrained import UNTRAINED_NAMES
from ...manifests.predictions import make_predictions, scores_text
from ...manifests.splits.tasks import WITHIN_CORPUS
from ..config import FinetuneConfig, anew, by_names_of_today
from ..data.dataset import SegmentDataset, make_loader
from .module import ModelIdentity, SpeakerModule, check_same_model

if TYPE_CHECKING:
    import pandas as pd


def read_description(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint's `spk` entry, leaving its tensors on disk and unchecked."""
    return _load_checked(
        path, lambda: torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    )["spk"]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint safely; no code in it is executed.

    Raises
    ------
    InputError
        There is no such file, or it is not a checkpoint of spk-finetune.
    """

    def load() -> Any:
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True)

    return _load_checked(path, load)


def _load_checked(path: str | Path, load: Callable[[], Any]) -> dict[str, Any]:
    """Load a checkpoint and check that it is ours, or raise `InputError`."""
    if Path(path).is_dir():
        raise InputError(f"{path}: is a folder, expected a checkpoint; name a .ckpt file in it")
    try:
        checkpoint = load()
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file, expected a checkpoint; name another, or {retrain(path)}"
        ) from None
    except Exception as problem:  # torch and pickle raise many kinds for a damaged file
        first_line = str(problem).split("\n")[0]
        raise InputError(
            f"{path}: cannot be read ({first_line}), expected a checkpoint of spk-finetune; "
            f"{retrain(path)}"
        ) from None
    description = checkpoint.get("spk") if isinstance(checkpoint, dict) else None
    required = {"task", "labels", "split", "rows", "trained", "encoder", "settings", "temperature"}
    if (
        not isinstance(description, dict)
        or not required <= set(description)
        or "state_dict" not in checkpoint
        or not _has_names(description)
    ):
        raise InputError(
            f"{path}: does not say what it was trained on, expected a checkpoint of spk-finetune; "
            "name another"
        )
    (description["task"],) = normal_names([description["task"]])
    description["labels"] = normal_names(description["labels"])
    return checkpoint


def _has_names(description: dict[str, Any]) -> bool:
    """Return whether a description's task and labels are strings."""
    labels = description["labels"]
    return isinstance(labels, list) and all(
        isinstance(n, str) for n in (description["task"], *labels)
    )


def retrain(path: str | Path) -> str:
    """Return the repair that trains a checkpoint again, in a session's folder or elsewhere."""
    places = [place for place in Path(path).parents if place.name.startswith("version_")]
    if places and (places[0] / "task.json").is_file():
        return anew(places[0])
    return "train it again with spk-finetune fit in another --log-dir"


def _check_archive(path: str | Path) -> None:
    """Raise `ValueError` if bytes have changed since saving, which torch does not check."""
    with zipfile.ZipFile(path) as archive:
        changed = archive.testzip()
    if changed is not None:
        raise ValueError(f"bytes have changed in {changed!r}")


def load_finetuned(path: str | Path, *, encoder: str | None = None) -> SpeakerModule:
    """Load the model of a checkpoint, on the CPU and in eval mode.

    Parameters
    ----------
    encoder
        Folder or hub id of the encoder, if it has moved since training.

    Raises
    ------
    InputError
        The checkpoint cannot be read, or its encoder is unavailable or has other weights.
    """
    checkpoint = read_checkpoint(path)
    description = checkpoint["spk"]
    config = settings_of(path, description["settings"])
    name = encoder or config.encoder
    trained = description["encoder"]
    parts = load_encoder_parts(
        name, revision=_revision(name, trained), normalize=_normalize(trained, config)
    )
    split = str(description["split"])
    subject = ModelIdentity(
        description["task"],
        tuple(description["labels"]),
        parts.provenance,
        split,
        rows=str(description["rows"]),
        trained=frozenset(description["trained"]),
        audio=tuple(description.get("audio", ())),
    )
    check_same_model(description, subject, "--encoder")
    module = SpeakerModule(parts, subject, config)
    load_weights(module, checkpoint)
    return module.eval()


def load_weights(module: SpeakerModule, checkpoint: dict[str, Any]) -> None:
    """Load a checkpoint's tensors into a model of the same settings; none may be missing.

    Raises
    ------
    InputError
        Tensors are missing or have another shape.
    """
    module.on_load_checkpoint(checkpoint)
    state = checkpoint["state_dict"]
    missing = sorted(module.trained_names() - set(state))
    try:
        unknown = module.load_state_dict(state, strict=False).unexpected_keys
    except RuntimeError as problem:  # a tensor of another shape
        unknown = [str(problem).split("\n")[-1].strip()]
    if missing or unknown:
        raise InputError(
            f"checkpoint of {module.subject.task}: {counted(len(missing), 'tensor', 'is')} "
            f"missing and {len(unknown)} {agree(len(unknown), 'does', 'do')} not fit, first "
            f"{[*missing, *unknown][0]!r}, expected those that its settings name; train it again "
            "in another --log-dir"
        )


def settings_of(path: str | Path, settings: dict[str, Any]) -> FinetuneConfig:
    """Build the `Config` that a checkpoint was made with, or raise `InputError`."""
    try:
        return FinetuneConfig(
            **{**by_names_of_today(settings), "sessions": tuple(settings.get("sessions", ()))}
        )
    except TypeError as problem:
        raise InputError(
            f"{path}: settings do not fit this version ({problem}), expected those of "
            "spk-finetune; use the version that wrote it"
        ) from None


def _revision(name: str, encoder: dict[str, Any]) -> str | None:
    """Return the commit that a hub id is pinned to; None for folders and built-in encoders."""
    built_in = name in (*BUILT_IN, *UNTRAINED_NAMES)
    return None if built_in or Path(name).is_dir() else str(encoder["revision"])


def _normalize(encoder: dict[str, Any], config: FinetuneConfig) -> str | None:
    """Return whether waveforms were normalised in training, whatever the folder says now."""
    options: dict[Any, str | None] = {value: name for name, value in NORMALIZE.items()}
    return options.get(encoder.get("normalization"), config.normalize)


def score_segments(
    module: SpeakerModule, segments: SegmentDataset, config: FinetuneConfig
) -> np.ndarray:
    """Return scores (n, labels) float32, in the order of the segments."""
    module.eval()
    places: list[int] = []
    rows: list[torch.Tensor] = []  # on the device, to wait for it only once
    with torch.inference_mode(), autocast(config, module.device):
        for batch in make_loader(segments, config):
            places += batch.ask.places
            rows.append(module(batch))
    scores = np.empty((len(segments), len(module.subject.labels)), np.float32)
    if rows:
        scores[places] = torch.cat(rows).cpu().numpy()
    return scores


def autocast(config: FinetuneConfig, device: torch.device) -> Any:
    """Return a context in which the model computes at the precision of the settings."""
    dtype = choose_dtype(config.dtype, device)
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def model_name(subject: ModelIdentity, config: FinetuneConfig) -> str:
    """Return the name for the predictions' model column, with what makes scores doubtful."""
    corpus = WITHIN_CORPUS if config.within == "corpus" else ""
    untrained = ", untrained encoder" if subject.encoder["untrained"] else ""
    leaky = f", split {subject.split}" if "leaky" in subject.split else ""
    return f"finetune {subject.encoder['encoder']}{corpus}{untrained}{leaky}"


def predictions_table(
    rows: pd.DataFrame, scores: np.ndarray, labels: Sequence[str], temperature: float, name: str
) -> pd.DataFrame:
    """Build the predictions table of segments `rows` (n) from scores (n, labels)."""
    chances = probabilities(scores.astype(np.float64), temperature)
    return make_predictions(
        rows,
        name,
        predicted=np.asarray(labels, dtype=object)[chances.argmax(axis=1)],
        score=chances.max(axis=1),
        scores=[scores_text(labels, row) for row in chances],
    )
