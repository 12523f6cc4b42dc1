"""Where an encoder's files lie and what they say, before any weight is loaded (no torch here).

An encoder is named by a local folder or a hub id. A hub id is resolved to a commit hash; a folder
has the revision "local", its weights' hash tells it apart. Weights are safetensors, or a
``pytorch_model.bin`` that is read with ``weights_only``. w2v-BERT 2.0 hears through a feature
extractor of its own, so its folder must have that one's ``preprocessor_config.json`` too.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.errors import InputError

W2V_BERT = "wav2vec2-bert"
MODEL_TYPES = (
    *("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat"),
    W2V_BERT,
)
NORMALIZED = "zero mean, unit variance per segment"  # population variance, epsilon 1e-7
NOT_NORMALIZED = "none"
EXTRACTOR = "SeamlessM4TFeatureExtractor"
LOG_MEL = f"log-mel of {EXTRACTOR}, zero mean and unit variance per bin and segment"
STRIDE = 2  # log-mel frames of 10 ms that make one of the encoder's

ATTENTION = ("eager", "sdpa")  # transformers' own; other names may be kernels of the hub

DEMO = "demo"
DEMO_SEED = 20240
DEMO_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    # Two convolutions with wav2vec2's receptive field (400 samples) and step (320): cheap, and
    # the first is a bank of filters, without which random numbers keep little of a voice.
    "num_feat_extract_layers": 2,
    "conv_dim": (64, 64),
    "conv_kernel": (400, 1),
    "conv_stride": (320, 1),
    "conv_bias": True,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "vocab_size": 8,
}

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Checkpoint:
    """An encoder's files: `config` is config.json, `weights` are absent where not asked for."""

    name: str
    folder: Path
    revision: str
    config: dict[str, Any]
    normalization: str
    rate: int  # Hz
    weights: tuple[Path, ...] = ()

    @property
    def layer_count(self) -> int:
        """Number of transformer layers (where nothing is said, 24 of w2v-BERT, else 12)."""
        return int(self.config.get("num_hidden_layers", 24 if self._large else 12))

    @property
    def hidden_size(self) -> int:
        """Width of a state (where nothing is said, 1024 of w2v-BERT, else 768)."""
        return int(self.config.get("hidden_size", 1024 if self._large else 768))

    @property
    def _large(self) -> bool:
        return self.config["model_type"] == W2V_BERT

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the encoder; reads the weights once, to hash them."""
        return {
            "encoder": self.name,
            "revision": self.revision,
            "weights_sha256": _sha256(*self.weights),
            "encoder_config_sha256": _sha256(self.folder / "config.json"),
            "untrained": False,
            "normalization": self.normalization,
        }


def find_checkpoint(name: str, *, revision: str | None = None, weights: bool = True) -> Checkpoint:
    """Return the files of an encoder; `weights` false looks for its configuration alone.

    Raises
    ------
    InputError
        No such folder, not in the hub's cache and not to be fetched, or an architecture whose
        front end is neither wav2vec2's nor w2v-BERT's.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise InputError(
                f"--revision: value is {revision!r} for the folder {name}, expected a hub id; "
                "leave it out"
            )
        return _read(Path(name).resolve().name, Path(name), "local", weights)
    if not _HUB_ID.fullmatch(name):
        raise InputError(
            f"--encoder: {name!r} is no folder, expected a folder or a hub id like "
            "facebook/wav2vec2-base; correct it"
        )
    folder = _fetch(name, revision, ["*.json"])
    for pattern in _WEIGHTS if weights else ():
        if not _weights(folder):
            _fetch(name, folder.name, [pattern])
    if weights and not _weights(folder):
        raise InputError(_not_at_hand(name, "its weights are not in the hub's cache"))
    return _read(name, folder, folder.name, weights)


def _fetch(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as problem:  # offline, unknown, gated, timed out: a dozen kinds, one repair
        raise InputError(_not_at_hand(name, str(problem).split("\n")[0])) from problem


def _not_at_hand(name: str, found: str) -> str:
    return (
        f"{name}: encoder is not at hand ({found}), expected it in the hub's cache or a folder; "
        f"run `hf download {name}` where there is a network, or name a folder with --encoder"
    )


def _read(name: str, folder: Path, revision: str, weights: bool) -> Checkpoint:
    config = _json(folder / "config.json")
    kind = config.get("model_type")
    _refuse_kernels(folder, config)
    if kind not in MODEL_TYPES:
        raise InputError(
            f"{name}: model_type is {kind!r}, expected one of {list(MODEL_TYPES)}; "
            "choose an encoder of that kind"
        )
    files = tuple(_weights(folder)) if weights else ()
    if weights and not files:
        raise InputError(
            f"{folder}: files {list(_WEIGHTS)} are missing, expected one; save the model there"
        )
    _refuse_elsewhere(folder, files)
    normalization, rate = (_log_mel if kind == W2V_BERT else _preprocessing)(folder, config)
    return Checkpoint(name, folder, revision, config, normalization, rate, files)


def _refuse_elsewhere(folder: Path, files: tuple[Path, ...]) -> None:
    """Refuse an index of weights in several files that names others than those that are hashed."""
    kinds = {file.suffix for file in files}
    for index in sorted(folder.glob("*.index.json")):
        if Path(index.name.removesuffix(".index.json")).suffix in kinds:
            named = _json(index).get("weight_map")
            strange = {*named.values()} - {file.name for file in files} if named else {None}
            if strange:
                raise InputError(
                    f"{index}: weights are in {min(map(repr, strange))}, expected files of its "
                    "folder; save the model again"
                )


def _refuse_kernels(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that has transformers fetch compiled attention from the hub."""
    for key in ("attn_implementation", "_attn_implementation"):
        found = config.get(key)
        if found not in (None, *ATTENTION):
            raise InputError(
                f"{folder / 'config.json'}: {key} is {found!r}, expected one of {list(ATTENTION)} "
                "or nothing: others may be programs from elsewhere; delete the line"
            )


def _preprocessing(folder: Path, config: dict[str, Any]) -> tuple[str, int]:
    """Return how waveforms are normalised, and the rate (Hz).

    Without preprocessor_config.json: as fairseq trained them, encoders with layer norm in the
    front end on normalised waveforms, those with group norm on waveforms as they are; 16 kHz.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        norm = config.get("feat_extract_norm", "group")
        layer = norm == "layer" or config["model_type"] == "data2vec-audio"
        return NORMALIZED if layer else NOT_NORMALIZED, 16000
    found = _json(path)
    wanted = NORMALIZED if found.get("do_normalize", True) else NOT_NORMALIZED
    return wanted, int(found.get("sampling_rate", 16000))


def _log_mel(folder: Path, config: dict[str, Any]) -> tuple[str, int]:
    """Return the same for w2v-BERT, whose feature extractor must be there and fit the model."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise InputError(
            f"{path}: file is missing, expected the settings of {EXTRACTOR}; save them there"
        )
    found = _json(path)
    bins = config.get("feature_projection_input_dim", 80 * STRIDE) // STRIDE
    _expect(path, "feature_extractor_type", found.get("feature_extractor_type"), EXTRACTOR)
    _expect(path, "stride", found.get("stride", 2), STRIDE)
    _expect(path, "num_mel_bins", found.get("num_mel_bins", 80), bins)
    # The other kinds hold tables of positions, which a cast to bfloat16 would round.
    positions = config.get("position_embeddings_type", "relative_key")
    _expect(folder / "config.json", "position_embeddings_type", positions, "relative_key")
    return LOG_MEL, int(found.get("sampling_rate", 16000))


def _expect(path: Path, name: str, found: object, expected: object) -> None:
    if found != expected:
        raise InputError(
            f"{path}: {name} is {found!r}, expected {expected!r}; choose an encoder like "
            "facebook/w2v-bert-2.0"
        )


def _weights(folder: Path) -> list[Path]:
    """Return the weight files: safetensors where there are any."""
    for pattern in _WEIGHTS:
        files = sorted(folder.glob(pattern))
        if files:
            return files
    return []


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__}")
        return found
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(
            f"{path}: cannot be read ({problem}), expected a JSON object; save the model again"
        ) from None


def _sha256(*paths: Path) -> str:
    """Return the SHA-256 of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
