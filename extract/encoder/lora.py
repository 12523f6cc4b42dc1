"""Merge a LoRA adapter beside an encoder's weights (PEFT's two files) into them.

``adapter_config.json`` describes the adapter; ``adapter_model.safetensors`` has two thin matrices
per adapted layer, A (r, in) and B (out, r). The layer's weight becomes W + scale B A, where scale
is alpha / r, or alpha / sqrt(r) for a rank-stabilised adapter. Anything that cannot be merged
exactly is refused by name. Adapters of a head are ignored, as the head is.

Sources: Hu et al. (2022), section 4.1; Kalajdzievski (2023), theorem 3.2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.counts import counted
from ...common.errors import InputError
from .files import check_content, read_json

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# Settings that are supported, and those that affect only training; any other must be unset.
MET = ("r", "lora_alpha", "use_rslora", "target_modules", "layers_to_transform", "rank_pattern")
OF_TRAINING = (
    *("auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules", "inference_mode"),
    *("layers_pattern", "lora_dropout", "megatron_core", "peft_type", "peft_version", "revision"),
    *("runtime_config", "task_type", "modules_to_save"),
    "qalora_group_size",  # only with use_qalora, which must be off
)
# Other initialisations change the encoder's own weights, which a merge would then miss.
BEGINNINGS = (True, False, None, "gaussian", "orthogonal", "eva")
_MATRIX = re.compile(r"(.+)\.lora_(A|B)(?:\.default)?\.weight")
_REPAIR = (
    "merge it with PEFT's merge_and_unload, save the model to another folder without the adapter's "
    "files, and name that"
)


@dataclass(frozen=True)
class Merged:
    """The number of layers that an adapter changed, its rank, and its tensors for a head."""

    layers: int
    rank: int
    of_head: int


def adapter_files(folder: Path, *, has_weights: bool) -> tuple[Path, ...]:
    """Return an adapter's configuration and weights, or an empty tuple if there is none.

    Raises
    ------
    InputError
        One of the two files or the encoder's own weights are missing, or it cannot be merged.
    """
    config = folder / CONFIG
    weights = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not config.is_file() and not weights:
        return ()
    if not config.is_file() or not weights:
        there, absent = (config.name, WEIGHTS[0]) if config.is_file() else (weights[0].name, CONFIG)
        raise InputError(
            f"{folder}: adapter has {there} but no {absent}, expected both; bring the missing "
            "file, or move the other elsewhere to do without the adapter"
        )
    settings = read_json(config)
    _check_settings(config, settings)
    if not has_weights:
        base = settings.get("base_model_name_or_path")
        raise InputError(
            f"{folder}: holds an adapter of {base!r} without that encoder's weights, expected both "
            f"in one folder; copy {config.name} and {weights[0].name} beside the encoder's files"
        )
    check_content(weights[0])
    return config, weights[0]


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse anything but a plain LoRA, since unknown settings may change the result."""
    kind = settings.get("peft_type")
    if kind != "LORA":
        raise InputError(f"{path}: peft_type is {kind!r}, expected 'LORA'; {_REPAIR}")
    begun = settings.get("init_lora_weights", True)
    if not any(begun is choice or begun == choice for choice in BEGINNINGS):
        raise InputError(
            f"{path}: init_lora_weights is {begun!r}, expected one of {list(BEGINNINGS)}; {_REPAIR}"
        )
    if settings.get("bias", "none") != "none":
        raise InputError(f"{path}: bias is {settings['bias']!r}, expected 'none'; {_REPAIR}")
    supported = {*MET, *OF_TRAINING, "init_lora_weights", "bias"}
    others = {name: value for name, value in sorted(settings.items()) if name not in supported}
    for name, value in others.items():
        if value:
            raise InputError(f"{path}: {name} is {value!r}, expected none; {_REPAIR}")
    for name in ("r", "lora_alpha"):
        value = settings.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise InputError(f"{path}: {name} is {value!r}, expected a number above 0; correct it")


def merge_adapter(model: Any, files: tuple[Path, ...]) -> Merged:
    """Add an adapter to a model's weights, in float32.

    Parameters
    ----------
    model
        A transformers model without a head, in float32 on the CPU.
    files
        The files from `adapter_files`.

    Raises
    ------
    InputError
        A matrix is missing, has the wrong shape, or belongs to a module that is not linear.
    """
    config, weights = files
    settings = read_json(config)
    pairs, of_head = _sorted_tensors(model, weights)
    _check_targets(config, settings, model, set(pairs))
    layers = dict(model.named_modules())
    ranks = [
        _merge(weights, name, layers.get(name), pair, settings) for name, pair in pairs.items()
    ]
    if not ranks:
        raise InputError(
            f"{weights}: no tensor of the adapter is of the encoder, expected matrices "
            f"lora_A and lora_B of its layers; move {config.name} elsewhere to do without it"
        )
    return Merged(len(ranks), max(ranks), of_head)


def _sorted_tensors(model: Any, path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Return the encoder's {layer: {"A": matrix, "B": matrix}}, and the count of head tensors."""
    parts = {name for name, _ in model.named_children()} | {"masked_spec_embed"}
    pairs: dict[str, dict[str, Any]] = {}
    of_head = 0
    for key, tensor in _read_tensors(path).items():
        name = key.removeprefix("base_model.model.").removeprefix(f"{model.base_model_prefix}.")
        matrix = _MATRIX.fullmatch(name)
        if name.split(".")[0] not in parts:
            of_head += 1
        elif matrix is None:
            raise InputError(f"{path}: {key!r} is not a matrix A or B of LoRA; {_REPAIR}")
        else:
            pairs.setdefault(matrix[1], {})[matrix[2]] = tensor
    return pairs, of_head


def _read_tensors(path: Path) -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as problem:  # each format's reader raises its own exceptions
        first = str(problem).partition("\n")[0]
        raise InputError(
            f"{path}: cannot be read ({first}), expected an adapter's tensors; fetch it again"
        ) from None


def _check_targets(config: Path, settings: dict[str, Any], model: Any, there: set[str]) -> None:
    """Refuse an adapter that lacks matrices for a layer that it claims to adapt."""
    targets = settings.get("target_modules")
    partial = settings.get("layers_to_transform") is not None or settings.get("exclude_modules")
    if not isinstance(targets, list) or partial:
        return
    ends = tuple(f".{target}" for target in targets)
    expected = {name for name, _ in model.named_modules() if f".{name}".endswith(ends)}
    if missing := sorted(expected - there):
        raise InputError(
            f"{config}: {counted(len(missing), 'layer', 'has', of=len(expected))} no matrices in "
            f"the adapter, first {missing[0]!r}, expected all that target_modules names; fetch it "
            "again"
        )


def _merge(
    path: Path, name: str, layer: Any, pair: dict[str, Any], settings: dict[str, Any]
) -> int:
    """Add B A to one layer's weight and return the rank."""
    import torch

    a, b = pair.get("A"), pair.get("B")
    shapes = [None if matrix is None else tuple(matrix.shape) for matrix in (a, b)]
    rank = shapes[0][0] if shapes[0] else 0
    linear = isinstance(layer, torch.nn.Linear)
    expected = [(rank, layer.in_features), (layer.out_features, rank)] if linear else None
    if a is None or b is None or not rank or shapes != expected:
        raise InputError(
            f"{path}: matrices A and B of {name!r} have shapes {shapes}, expected "
            f"{expected or 'those of a linear layer'}; {_REPAIR}"
        )
    if rank != settings["r"] and not settings.get("rank_pattern"):
        raise InputError(
            f"{path}: rank of {name!r} is {rank}, expected {settings['r']}, the r of {CONFIG}; "
            "fetch both files again"
        )
    scale = settings["lora_alpha"] / (rank**0.5 if settings.get("use_rslora") else rank)
    layer.weight.data += scale * (b.float() @ a.float())
    return int(rank)
