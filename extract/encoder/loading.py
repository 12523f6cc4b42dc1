"""Load weights into a model, from a checkpoint or drawn from a seed, and its front end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from ...common.counts import agree, counted
from ...common.errors import InputError
from .checkpoint import Checkpoint, find_checkpoint
from .frontend import LogMel, Waveforms
from .lora import merge_adapter
from .mfcc import MFCC, RATE, CepstralFrontEnd, mfcc_model
from .preprocessing import EXTRACTOR, LOG_MEL, NORMALIZE, NORMALIZED
from .switches import check_switches
from .transformer import _transformers, fold_weight_norm
from .untrained import UNTRAINED_NAMES, untrained_model


@dataclass(frozen=True)
class LoadedEncoder:
    """The parts of an encoder: `provenance` identifies it, `rate` is in Hz.

    `notes` tells the user what was assumed, left out or merged, a line each.
    """

    model: Any  # a transformers model, all alike in structure; float32 on the CPU
    front: Waveforms | LogMel | CepstralFrontEnd
    provenance: dict[str, Any]
    rate: int
    notes: tuple[str, ...] = ()


def load_encoder_parts(
    name: str, *, revision: str | None = None, normalize: str | None = None
) -> LoadedEncoder:
    """Load an encoder by folder, hub id, ``small``, ``untrained`` or ``mfcc``.

    Raises `InputError` if it cannot be loaded.

    `normalize` (``yes`` or ``no``) decides whether waveforms are normalised, overriding the
    encoder's files; None leaves it to them.
    """
    if name in UNTRAINED_NAMES:
        model, provenance = untrained_model()
        provenance["normalization"] = NORMALIZE[normalize or "yes"]
        front = Waveforms(model, normalized=normalize != "no")
        return LoadedEncoder(model, front, provenance, rate=16000)
    if name == MFCC:
        return LoadedEncoder(*_baseline(normalize), rate=RATE)
    checkpoint = find_checkpoint(name, revision=revision, normalize=normalize)
    loaded, notes = load_model(checkpoint)
    return LoadedEncoder(
        loaded,
        load_front_end(checkpoint, loaded),
        checkpoint.provenance(),
        rate=checkpoint.input.rate,
        notes=(*checkpoint.input.notes, *notes),
    )


def _baseline(normalize: str | None) -> tuple[nn.Module, CepstralFrontEnd, dict[str, Any]]:
    """Return the parts of ``mfcc``, whose input is the waveform without normalisation."""
    if normalize == "yes":
        raise InputError(
            f"--normalize: value is 'yes' beside --encoder {MFCC}, whose coefficients are computed "
            "from the waveform as it is, expected no; leave it out"
        )
    model, provenance = mfcc_model()
    return model, CepstralFrontEnd(), provenance


def load_model(checkpoint: Checkpoint) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a checkpoint's encoder in float32 on the CPU, weight norm folded, and notes on it.

    Raises
    ------
    InputError
        The weights cannot be read, some are missing (and would be random), or an unknown setting
        may change the states.
    """
    with _alone(checkpoint) as folder:
        model, loading_info = _from_pretrained(checkpoint, folder)
    check_switches(checkpoint.folder / "config.json", type(model.config), checkpoint.config)
    # Used in training only, so checkpoints may lack it.
    missing = sorted(key for key in loading_info["missing_keys"] if "masked_spec_embed" not in key)
    missing += sorted(str(key) for key in loading_info.get("mismatched_keys", ()))
    if missing:
        raise InputError(
            f"{checkpoint.folder}: {counted(len(missing), 'weight', 'is')} missing or of another "
            f"shape, first {missing[0]!r}, expected all of them; fetch the model again"
        )
    notes = _notes(checkpoint, model, sorted(loading_info["unexpected_keys"]))
    if checkpoint.adapter:
        merged = merge_adapter(model, checkpoint.adapter)
        notes.append(
            f"{checkpoint.adapter[0]}: the LoRA adapter (rank {merged.rank}, "
            f"{counted(merged.layers, 'layer')}) is merged into the weights; move its files "
            "elsewhere to do without it"
        )
    return fold_weight_norm(model.float()), tuple(notes)


def _from_pretrained(checkpoint: Checkpoint, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return transformers' model without a head, and its report on the file's tensors."""
    transformers = _transformers()
    # By default transformers would round to the dtype that config.json names.
    dtype = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    try:
        with _quiet():
            model, loading_info = transformers.AutoModel.from_pretrained(
                folder,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                **{dtype: torch.float32},
            )
    except ImportError as problem:
        raise InputError(
            f"{checkpoint.folder}: a package that it needs is missing "
            f"({_first_line(problem)}), expected it; install it"
        ) from problem
    except Exception as problem:  # each format's reader raises its own kinds
        raise InputError(
            f"{checkpoint.folder}: weights cannot be read ({_cause(problem)}); "
            "fetch them again, as safetensors where there are any"
        ) from problem
    return model, loading_info


def _cause(problem: Exception) -> str:
    if type(problem).__name__ == "UnpicklingError":  # whose text advises to run what it found
        return "the file is damaged, or holds more than tensors, which could run code"
    return _first_line(problem)


def _first_line(problem: Exception) -> str:
    return str(problem).strip().partition("\n")[0] or type(problem).__name__


@contextmanager
def _alone(checkpoint: Checkpoint) -> Iterator[Path]:
    """Yield a folder without the adapter, which transformers would load if PEFT is installed.

    The result must not depend on which packages are installed.
    """
    if not checkpoint.adapter:
        yield checkpoint.folder
        return
    with TemporaryDirectory() as name:
        for file in checkpoint.folder.iterdir():
            if file.is_file() and not file.name.startswith("adapter_"):
                (Path(name) / file.name).symlink_to(file.resolve())
        yield Path(name)


def _notes(checkpoint: Checkpoint, model: Any, unexpected: list[str]) -> list[str]:
    """Return notes on weights that were left out, other than those of a head."""
    notes = []
    parts = {name for name, _ in model.named_children()}
    names = {key: key.removeprefix(f"{model.base_model_prefix}.").split(".") for key in unexpected}
    # A head for x-vectors has a feature_extractor too, but without parts inside.
    ours = [key for key, name in names.items() if name[0] in parts and len(name) > 2]
    if ours:
        notes.append(
            f"{checkpoint.folder}: {counted(len(ours), 'weight', 'has')} no place in the encoder "
            f"that config.json describes, first {ours[0]!r}, and {agree(len(ours), 'is', 'are')} "
            "left out; correct config.json if they belong there"
        )
    if "layer_weights" in unexpected or checkpoint.config.get("use_weighted_layer_sum"):
        notes.append(
            f"{checkpoint.folder}: the head's own mix of layers (use_weighted_layer_sum) is left "
            "out with the head; each layer is given as it is"
        )
    languages = sorted(checkpoint.folder.glob("adapter.*"))
    if languages:
        notes.append(
            f"{checkpoint.folder}: {counted(len(languages), 'language adapter', 'lies')} beside "
            f"the weights, first {languages[0].name}, and {agree(len(languages), 'is', 'are')} "
            "left out; the encoder is used with the adapter inside its own weights, as "
            "transformers loads it"
        )
    return notes


def load_front_end(checkpoint: Checkpoint, model: nn.Module) -> Waveforms | LogMel:
    """Return what turns waveforms into the input of a checkpoint's feature projection."""
    normalization = checkpoint.input.normalization
    if normalization == LOG_MEL:
        extractor = getattr(_transformers(), EXTRACTOR)
        return LogMel(extractor.from_pretrained(checkpoint.folder, local_files_only=True))
    return Waveforms(model, normalized=normalization == NORMALIZED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing progress bars and from listing heads that are left out."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
