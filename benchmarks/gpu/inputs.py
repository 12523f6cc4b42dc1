"""What the probe's sections measure on: a random encoder, and batches as a run makes them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from spk.extract.encoder.encoder import Encoder
from spk.extract.encoder.frontend import Waveforms
from spk.extract.encoder.loading import LoadedEncoder
from spk.extract.encoder.torchaudio_import import import_torchaudio
from spk.extract.encoder.transformer import fold_weight_norm
from spk.extract.encoder.varlen import Kernel, varlen_kernel

RATE = 16000
SHAPES: dict[str, dict[str, Any]] = {
    "nano": {  # 16 channels a group: oneDNN's bfloat16 is wrong with 8
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    },
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "conv_dim": (512,) * 7,
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
    },
}
IDENTITY = (
    *("encoder", "revision", "weights_sha256", "encoder_config_sha256", "untrained"),
    "normalization",
)


class Inputs:
    """One size of encoder on one device, and segments whose lengths are drawn from RTTMs.

    Attributes
    ----------
    count
        Batches of a measurement.
    seconds
        Audio in a batch, in s.
    """

    def __init__(
        self, size: str, device: torch.device, rttm: Path | None, count: int, seconds: float
    ) -> None:
        self.shape, self.device, self.count, self.seconds = SHAPES[size], device, count, seconds
        self._longest = 30.0 if size == "large" else 2.5  # s; a rehearsal is short
        self.layers = range(self.shape["num_hidden_layers"] + 1)
        self._lengths = [
            float(line.split()[4])
            for file in sorted(rttm.glob("*.rttm") if rttm else ())
            for line in file.read_text().splitlines()
            if line.startswith("SPEAKER")
        ]

    def parts(self, **more: object) -> LoadedEncoder:
        """Return a random encoder of the default's kind; its weights are made on the device."""
        import_torchaudio()  # transformers imports it
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        torch.manual_seed(0)
        config = Wav2Vec2Config(
            **self.shape,
            feat_extract_norm="layer",
            conv_bias=True,
            do_stable_layer_norm=True,
            layerdrop=0.0,
            **more,
        )
        with self.device:
            model = fold_weight_norm(Wav2Vec2Model(config))
        front = Waveforms(model, normalized=True)
        return LoadedEncoder(model, front, dict.fromkeys(IDENTITY, "probe"), RATE)

    def encoder(self, dtype: torch.dtype, masked: bool = False) -> Encoder:
        """Return the encoder as a run has it, or one that attends by a mask wherever it may."""
        return Encoder(self.parts(), device=self.device, dtype=dtype, masked=masked)

    def kernel(self, encoder: Encoder) -> Kernel | None:
        """Return the kernel of a pass without a mask; a rehearsal has one that computes nothing."""
        if self.device.type != "cuda":
            return lambda query, *_, **__: query
        return varlen_kernel(encoder._model.encoder, self.device, encoder._dtype)

    def lengths(self, count: int, seed: int = 0) -> np.ndarray:
        """Return lengths in s, at least 1.5, from long to short."""
        rng = np.random.default_rng(seed)
        usable = np.array([length for length in self._lengths if 1.5 <= length <= self._longest])
        if not len(usable):
            usable = np.clip(rng.lognormal(1.1, 0.6, count), 1.5, self._longest)
        return np.sort(rng.choice(usable, count) + rng.uniform(0, 0.02, count))[::-1]

    def batches(self, seconds: float, count: int, seed: int = 0) -> list[list[np.ndarray]]:
        """Return batches of int16 noise as a run makes them: sorted, and cut by seconds."""
        rng = np.random.default_rng(seed)
        noise = rng.integers(-9000, 9000, 40 * RATE, dtype=np.int16)
        cut: list[list[float]] = [[]]
        for length in self.lengths(6000, seed).tolist():
            if cut[-1] and cut[-1][0] * (len(cut[-1]) + 1) > seconds:
                cut.append([])
            cut[-1].append(length)
        chosen = cut[:: max(1, len(cut) // count)][:count]
        return [[_noise(noise, length, rng) for length in batch] for batch in chosen]


def _noise(noise: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    first = int(rng.integers(0, 5 * RATE))
    return np.ascontiguousarray(noise[first : first + int(length * RATE)])
