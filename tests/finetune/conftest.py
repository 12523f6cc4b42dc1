"""Tiny encoders of every kind, waveforms, recordings, and models built from them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RATE = 16000
SAMPLES = (16000, 5000, 11000)
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 8,
    "apply_spec_augment": False,
}
CONVOLUTIONS = {
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "hubert": ("Hubert", {**CONVOLUTIONS, "conv_pos_batch_norm": True}),
    "wavlm": ("WavLM", CONVOLUTIONS),
    "data2vec": (
        "Data2VecAudio",
        {"conv_dim": (16,) * 7, "conv_pos_kernel_size": 19, "num_conv_pos_embedding_groups": 2},
    ),
    # Weights large enough that positions matter.
    "w2v-bert": ("Wav2Vec2Bert", {"right_max_position_embeddings": 3, "initializer_range": 0.3}),
}


@pytest.fixture(scope="session")
def encoder_of(
    layer_encoder: Path, group_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Return a function that returns an encoder's folder: layer, group, or one of `KINDS`.

    The demo encoder, with five layers, has no folder and is its own name.
    """
    ready = {"layer": layer_encoder, "group": group_encoder, "demo": Path("demo")}

    @cache
    def folder(kind: str) -> Path:
        return ready.get(kind) or _save(tmp_path_factory.mktemp(kind), *KINDS[kind])

    return folder


def _save(folder: Path, name: str, changes: dict[str, Any]) -> Path:
    import torch
    import transformers

    torch.manual_seed(3)
    config = getattr(transformers, f"{name}Config")(**SHAPE, **changes)
    getattr(transformers, f"{name}Model")(config).eval().save_pretrained(folder)
    if name == "Wav2Vec2Bert":
        processor = transformers.SeamlessM4TFeatureExtractor(padding_value=1.0)
    else:
        processor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def waveforms() -> list[np.ndarray]:
    """Return three waveforms of unequal length and level."""
    rng = np.random.default_rng(0)
    return [
        (np.linspace(0.02, 0.2, count) * rng.standard_normal(count) + 0.01).astype(np.float32)
        for count in SAMPLES
    ]


@pytest.fixture(scope="session")
def make_trunk(encoder_of: Callable[[str], Path]) -> Callable[..., Any]:
    """Return a function that makes a partly frozen encoder of a kind, in training mode."""

    def make(kind: str, **settings: Any) -> Any:
        from spk.extract.encoder.loading import load_encoder_parts
        from spk.finetune.config import FinetuneConfig
        from spk.finetune.model.encoder import PartlyFrozenEncoder

        return PartlyFrozenEncoder(
            load_encoder_parts(str(encoder_of(kind))), FinetuneConfig(**settings)
        )

    return make


@pytest.fixture(scope="session")
def make_module(encoder_of: Callable[[str], Path]) -> Callable[..., Any]:
    """Return a function that makes a model of three labels, in training mode."""

    def make(kind: str, *, task: str = "M1", codes: Any = None, cache: Any = None, **settings: Any):
        from spk.extract.encoder.loading import load_encoder_parts
        from spk.finetune.config import FinetuneConfig
        from spk.finetune.model.module import ModelIdentity, SpeakerModule

        folder = str(encoder_of(kind))
        parts = load_encoder_parts(folder)
        subject = ModelIdentity(task, ("a", "b", "c"), parts.provenance, "random")
        config = FinetuneConfig(encoder=folder, **{"head_size": 16, **settings})
        return SpeakerModule(parts, subject, config, codes=codes, cache=cache)

    return make


@pytest.fixture(scope="session")
def make_batch(waveforms: list[np.ndarray]) -> Callable[..., Any]:
    """Return a function that makes a batch of some of the waveforms, or all."""

    def make(*places: int, epoch: int = 0, number: int = 0) -> Any:
        import torch

        from spk.finetune.data.dataset import Batch, BatchIndex

        places = places or (0, 1, 2)
        ask = BatchIndex(epoch, number, places)
        return Batch(ask, [waveforms[i] for i in places], torch.tensor([i % 3 for i in places]))

    return make


@pytest.fixture(scope="session")
def segments(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return nine segments, 0.3 to 1.1 s long, of a recording of two channels of noise."""
    import soundfile

    from spk.extract.audio import Segment

    path = str(tmp_path_factory.mktemp("audio") / "r.wav")
    rng = np.random.default_rng(5)
    soundfile.write(path, 0.1 * rng.standard_normal((8 * RATE, 2)), RATE, subtype="FLOAT")
    lengths = (0.5, 0.9, 0.3, 1.1, 0.7, 0.4, 1.0, 0.6, 0.8)
    starts = np.cumsum((0, *lengths))
    return [Segment(f"s{i}", path, starts[i], starts[i] + lengths[i]) for i in range(9)]


@pytest.fixture(scope="session")
def meetings(tmp_path_factory):
    """Return a folder of two recordings of three voices of noise, and the table of 48 segments."""
    import pandas as pd
    import soundfile

    folder = tmp_path_factory.mktemp("meetings")
    rng = np.random.default_rng(3)
    rows = []
    for session in ("M1", "M2"):
        sound = np.zeros(24 * 8000 * 2)
        for number in range(24):
            first, speaker = number * 16000, "abc"[number % 3]
            wave = np.sin(np.arange(11200) * (0.05 + 0.1 * (number % 3))) + rng.normal(
                0, 0.2, 11200
            )
            sound[first : first + 11200] = 0.1 * wave
            split = "train" if number < 15 else "valid" if number < 18 else "test"
            name = f"{session}_{speaker}_{number:02d}"
            rows.append(
                (name, f"{session}.wav", number * 1.0, number + 0.7, speaker, session, split)
            )
        soundfile.write(folder / f"{session}.wav", sound, 16000)
    names = ["segment_id", "audio", "start", "end", "speaker", "session", "split"]
    return folder, pd.DataFrame(rows, columns=names)


# What CUDA's autocast computes in float32 but a CPU's leaves unchanged, by torch's documentation.
WIDENED = (
    *("layer_norm", "group_norm", "softmax.int", "log_softmax.int", "sum", "sum.dim_IntList"),
    *("rsqrt", "pow.Tensor_Scalar", "cross_entropy_loss", "nll_loss", "acos", "exp", "log"),
    *("norm.ScalarOpt_dim", "cosine_similarity", "softplus", "cumsum", "prod", "reciprocal"),
)


@pytest.fixture
def cuda_autocast() -> Any:
    """Make autocast on a CPU cast as on a GPU, while the fixture is in use."""
    import torch

    library = torch.library.Library("aten", "IMPL", "AutocastCPU")
    there = torch._C._dispatch_has_kernel_for_dispatch_key
    for name in WIDENED:
        if there(f"aten::{name}", "AutocastCPU"):
            continue
        packet, _, overload = name.partition(".")
        kernel = getattr(getattr(torch.ops.aten, packet), overload or "default")
        library.impl(name, _widened(kernel))
    yield
    library._destroy()


def _widened(kernel: Any) -> Callable[..., Any]:
    """Return an operation that converts narrower formats to float32, below autocast."""
    import torch

    inside = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

    def wide(value: Any) -> Any:
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.float() if floating else value

    def run(*args: Any, **named: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(inside):
            return kernel(*map(wide, args), **{name: wide(value) for name, value in named.items()})

    return run
