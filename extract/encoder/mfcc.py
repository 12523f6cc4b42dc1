"""Mel-frequency cepstral coefficients: a conventional baseline that has no weights.

The numbers are those of ``torchaudio.transforms.MFCC`` for a single segment, with 20 coefficients
of 40 mel bands, windows of 25 ms every 10 ms and no padding at the ends. They are computed here, in
float64, so that they need no compiled files of torchaudio and do not depend on the batch.

Source: Davis and Mermelstein (1980), Comparison of parametric representations for monosyllabic
word recognition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from .preprocessing import NOT_NORMALIZED

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .device import DeviceTransfer

MFCC = "mfcc"
RATE = 16000  # Hz
COEFFICIENTS, BANDS = 20, 40
WINDOW, HOP = 400, 160  # samples: 25 ms and 10 ms
LEAST_POWER = 1e-10  # torchaudio's AmplitudeToDB
RANGE = 80.0  # dB below the segment's loudest band; quieter values are raised to that
SETTINGS = (
    f"{COEFFICIENTS} coefficients of {BANDS} mel bands, {WINDOW} samples every {HOP}, {RANGE:g} dB"
)


class CepstralFrontEnd:
    """Front end that returns a segment's coefficients. Batches are (n, frames, coefficients).

    It has the same interface as `frontend.LogMel`.
    """

    shortest = WINDOW

    def __init__(self) -> None:
        import torch
        from scipy.fft import dct

        bins = WINDOW // 2 + 1
        filters = _import_audio_utils().mel_filter_bank
        bank = filters(bins, BANDS, 0.0, RATE / 2, RATE)  # HTK's scale, unnormalised
        cosines = dct(np.eye(BANDS), norm="ortho")[:, :COEFFICIENTS]
        self._tables = {
            "bank": torch.from_numpy(bank),
            "cosines": torch.from_numpy(cosines),
            "window": torch.hann_window(WINDOW, dtype=torch.float64),
        }

    def prepare(
        self, waveforms: Sequence[np.ndarray], transfer: DeviceTransfer
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return coefficients (n, frames, 20) on the device, and frames (n,) on the CPU."""
        import torch

        from .frontend import pad

        batch, lengths = pad(waveforms, transfer)
        scale = 1 / 32768 if batch.dtype == torch.int16 else 1.0
        frames = (lengths - WINDOW) // HOP + 1
        with torch.autocast(batch.device.type, enabled=False):
            cepstra = self._cepstra(batch.double() * scale, frames)
        return cepstra.float(), frames

    def _cepstra(self, batch: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        import torch

        from .pooling import PaddingMask

        tables = {name: table.to(batch.device) for name, table in self._tables.items()}
        windows = batch.unfold(1, WINDOW, HOP)[:, : int(frames.max())] * tables["window"]
        power = torch.fft.rfft(windows).abs().square() @ tables["bank"]
        level = 10 * power.clamp(min=LEAST_POWER).log10()
        real = PaddingMask(frames, level.shape[1], level.device)
        loudest = real.only(level, -torch.inf).amax((1, 2), keepdim=True)
        return real.only(torch.maximum(level, loudest - RANGE) @ tables["cosines"])

    def frames(self, lengths: torch.Tensor) -> torch.Tensor:
        """Return `lengths` (n,), which are frames already."""
        return lengths

    def __call__(self, batch: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the batch unchanged, as `prepare` has done all the work."""
        return batch


def _import_audio_utils() -> Any:
    """Import only this part of transformers, in half the time that its models take."""
    from .torchaudio_import import FAILURES

    try:
        from transformers import audio_utils
    except FAILURES:  # beside a torchaudio that does not fit
        from .transformer import _transformers

        _transformers()
        from transformers import audio_utils
    return audio_utils


def mfcc_model() -> tuple[nn.Module, dict[str, Any]]:
    """Return a stand-in for an encoder's transformer, and the coefficients' provenance.

    It has no layers, so state 0, the input of the first layer, is the only one.
    """
    from torch import nn

    model: Any = nn.Module()
    model.config = SimpleNamespace(hidden_size=COEFFICIENTS)
    model.feature_projection = nn.Identity()
    model.encoder = nn.Module()
    model.encoder.layers = nn.ModuleList()
    return model, {
        "encoder": MFCC,
        "revision": SETTINGS,
        "weights_sha256": hashlib.sha256(b"").hexdigest(),
        "encoder_config_sha256": hashlib.sha256(SETTINGS.encode()).hexdigest(),
        "untrained": False,
        "baseline": True,
        "normalization": NOT_NORMALIZED,
    }
