"""Locate and check an encoder's files before any weights are loaded (no torch here).

An encoder is given as a local folder, a hub id or ``small``, the folder that ships with spk. A hub
id is resolved to a commit hash; a folder has the revision "local" and is identified by its weights'
hash. Weights are safetensors, or a ``pytorch_model.bin`` that is read with ``weights_only``;
quantized ones are refused. The input settings are read in `preprocessing`, an adapter beside the
weights in `lora`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import Any

from ...common.counts import counted
from ...common.errors import InputError
from .files import WEIGHTS, check_content, quantized_tensors, read_json, sha256, weight_files
from .lora import CONFIG, adapter_files
from .mfcc import MFCC
from .preprocessing import InputSettings, mel_input, waveform_input
from .untrained import UNTRAINED

SMALL = "small"  # the encoder that ships with spk, in the folder of that name
BUILT_IN = {SMALL: str(Path(__file__).with_name(SMALL))}
TRAINED_ON = "trained_on"  # in a config.json: how much speech, if that is little
W2V_BERT = "wav2vec2-bert"
FRAME = 320  # samples at 16 kHz
MODEL_TYPES = (
    *("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat"),
    W2V_BERT,
)
ATTENTION = ("eager", "sdpa")  # transformers' own; other names may be kernels of the hub

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """An encoder's files; `config` is the content of config.json, `weights` may not be requested.

    `adapter` is a LoRA beside the weights, if any, its configuration first.
    """

    name: str
    folder: Path
    revision: str
    config: dict[str, Any]
    input: InputSettings
    weights: tuple[Path, ...] = ()
    adapter: tuple[Path, ...] = ()

    @property
    def layer_count(self) -> int:
        """Number of transformer layers (default: 24 for w2v-BERT, else 12)."""
        return int(self.config.get("num_hidden_layers", 24 if self._large else 12))

    @property
    def hidden_size(self) -> int:
        """Width of a state (default: 1024 for w2v-BERT, else 768)."""
        return int(self.config.get("hidden_size", 1024 if self._large else 768))

    @property
    def frame_rate(self) -> float:
        """Frames per second of audio: 50 unless config.json says otherwise."""
        strides = self.config.get("conv_stride") or (FRAME,)
        return float(self.input.rate / prod(strides))

    @property
    def _large(self) -> bool:
        return self.config["model_type"] == W2V_BERT

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the encoder; reads all weights to hash them."""
        return {
            "encoder": self.name,
            "revision": self.revision,
            "weights_sha256": sha256(*self.weights, *self.adapter),
            "encoder_config_sha256": sha256(self.folder / "config.json"),
            "untrained": False,
            "normalization": self.input.normalization,
            **({"assumed": list(self.input.assumed)} if self.input.assumed else {}),
            **({TRAINED_ON: str(self.config[TRAINED_ON])} if TRAINED_ON in self.config else {}),
        }


def find_checkpoint(
    name: str,
    *,
    revision: str | None = None,
    normalize: str | None = None,
    weights: bool = True,
) -> Checkpoint:
    """Find an encoder's files.

    Parameters
    ----------
    normalize
        ``yes`` or ``no``: whether waveforms are normalised, overriding the folder's settings.
    weights
        If false, find only the configuration.

    Raises
    ------
    InputError
        There is no such folder; the hub id is neither cached nor downloadable; the front end is
        neither wav2vec2's nor w2v-BERT's; or the weights cannot be used as they are.
    """
    name = BUILT_IN.get(name, name)
    if Path(name).is_dir():
        if revision is not None:
            raise InputError(
                f"--revision: value is {revision!r} for the folder {name}, expected a hub id; "
                "leave it out"
            )
        return _read(Path(name).resolve().name, Path(name), "local", normalize, weights)
    if not _HUB_ID.fullmatch(name):
        raise InputError(
            f"--encoder: {name!r} is not a folder, expected a folder or a hub id like "
            "facebook/wav2vec2-base; correct it"
        )
    folder = _fetch(name, revision, ["*.json"])
    for pattern in WEIGHTS if weights else ():
        if not weight_files(folder):
            _fetch(name, folder.name, [pattern])
    if weights and (folder / CONFIG).is_file():
        _fetch(name, folder.name, ["adapter_model.*"])
    if weights and not weight_files(folder):
        raise InputError(_not_at_hand(name, "its weights are not in the hub's cache"))
    return _read(name, folder, folder.name, normalize, weights)


def in_hub_cache(name: str) -> bool:
    """Return whether an encoder is in the hub's cache, with its weights; uses no network."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return isinstance(config, str) and bool(weight_files(Path(config).parent))


def _fetch(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as problem:  # offline, unknown, gated, timed out: many kinds, one repair
        raise InputError(_not_at_hand(name, str(problem).split("\n")[0])) from problem


def _not_at_hand(name: str, reason: str) -> str:
    near = get_close_matches(name, (SMALL, MFCC, UNTRAINED), n=1)
    if near and "/" not in name:
        return (
            f"{name}: encoder is not available, expected a hub id, a folder or a built-in encoder; "
            f"pass --encoder {near[0]} if that is meant"
        )
    return (
        f"{name}: encoder is not available ({reason}), expected it in the hub's cache or a folder; "
        f"run `hf download {name}` where there is a network, or name a folder with --encoder, or "
        "small, which ships with spk"
    )


def _read(
    name: str, folder: Path, revision: str, normalize: str | None, weights: bool
) -> Checkpoint:
    files = tuple(weight_files(folder)) if weights else ()
    adapter = adapter_files(folder, has_weights=bool(files)) if weights else ()
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: holds no config.json, expected a folder of an encoder; name the one that "
            "transformers saved it to"
        )
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    _check_attention(folder, config)
    if kind not in MODEL_TYPES:
        raise InputError(
            f"{name}: model_type is {kind!r}, expected one of {list(MODEL_TYPES)}; "
            "choose an encoder of that kind"
        )
    if weights and not files:
        raise InputError(
            f"{folder}: files {list(WEIGHTS)} are missing, expected one; save the model there"
        )
    for file in files:
        check_content(file)
    _check_quantized(folder, config, files)
    _check_index(folder, files)
    settings = (mel_input if kind == W2V_BERT else waveform_input)(folder, config, normalize)
    return Checkpoint(name, folder, revision, config, settings, files, adapter)


def _check_quantized(folder: Path, config: dict[str, Any], files: tuple[Path, ...]) -> None:
    """Refuse weights that are quantized, or that the configuration asks to quantize."""
    rounded = quantized_tensors(files)
    for key in ("quantization_config", "compression_config"):
        quantization = config.get(key)
        if quantization is not None:
            method = (
                quantization.get("quant_method") if isinstance(quantization, dict) else quantization
            )
            plain = files and not rounded and all(f.suffix == ".safetensors" for f in files)
            other = (
                f"delete {key} from the file, since the weights themselves are not quantized"
                if plain
                else "name the encoder that it was made from"
            )
            raise InputError(
                f"{folder / 'config.json'}: {key} asks for quantized weights ({method!r}), "
                f"expected floating-point numbers; {other}"
            )
    if rounded:
        first = min(rounded)
        raise InputError(
            f"{folder}: {counted(len(rounded), 'weight', 'is')} not in floating point, first "
            f"{first!r} of {rounded[first]}, expected F32, F16 or BF16; name the encoder that it "
            "was made from, before it was quantized"
        )


def _check_index(folder: Path, files: tuple[Path, ...]) -> None:
    """Refuse an index of sharded weights that names files other than those hashed."""
    kinds = {file.suffix for file in files}
    for index in sorted(folder.glob("*.index.json")):
        if Path(index.name.removesuffix(".index.json")).suffix in kinds:
            weight_map = read_json(index).get("weight_map")
            strange = (
                {*weight_map.values()} - {file.name for file in files} if weight_map else {None}
            )
            if strange:
                raise InputError(
                    f"{index}: weights are in {min(map(repr, strange))}, expected files of its "
                    "folder; save the model again"
                )


def _check_attention(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that makes transformers download attention kernels from the hub."""
    for key in ("attn_implementation", "_attn_implementation"):
        attention = config.get(key)
        if attention not in (None, *ATTENTION):
            raise InputError(
                f"{folder / 'config.json'}: {key} is {attention!r}, expected one of "
                f"{list(ATTENTION)} or nothing: others may be programs from elsewhere; delete the "
                "line"
            )
