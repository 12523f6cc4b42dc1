"""Disk cache of the frozen layers' output for each training batch.

Exact, because it is kept per batch: the same segments in the same batch go through the same
operations, and the same bits are read back. It requires that nothing below the boundary changes
from epoch to epoch, which `check_cacheable` ensures. A file is the SHA-256 of its content, followed
by the content as safetensors; a damaged one is computed again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...common.errors import InputError
from ...common.files import atomic_write, check_free_space
from ...extract.encoder.device import carried
from ..config import FinetuneConfig
from ..data.dataset import BatchIndex
from .encoder import FrozenOutput

CHANGING = (
    *("crop_seconds", "mask_seconds", "mask_dims", "speed_prob", "noise_prob", "reverb_prob"),
    *("gain_prob", "channel_prob"),
)
FRAMES, HIDDEN, PLAIN = "frames", "hidden", "plain"
DIGEST = 32  # bytes


class FrozenLayerCache:
    """A folder with one file per batch; `put` writes it atomically, `get` reads it.

    Parameters
    ----------
    folder : Path
        Created if absent; another run's content is removed.
    fingerprint : str
        Fingerprint of everything that the content depends on: encoder, settings, segments.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        sign = folder / "fingerprint"
        if folder.is_dir() and (not sign.is_file() or sign.read_bytes() != fingerprint.encode()):
            shutil.rmtree(folder)
        atomic_write(sign, fingerprint.encode())

    def get(self, ask: BatchIndex, device: torch.device) -> FrozenOutput | None:
        """Return a batch's cached output, on the device; None if it is absent or damaged."""
        from safetensors.torch import load

        path = self._path(ask)
        content = path.read_bytes() if path.is_file() else b""
        if not content or content[:DIGEST] != hashlib.sha256(content[DIGEST:]).digest():
            return None
        tensors = load(content[DIGEST:])
        plain = json.loads(bytes(tensors.pop(PLAIN).tolist()))
        frames = tensors.pop(FRAMES)
        tensors = {name: carried(value, device) for name, value in tensors.items()}
        hidden = tensors.pop(HIDDEN)
        return FrozenOutput({}, hidden, plain | tensors, frames)

    def put(self, ask: BatchIndex, entered: FrozenOutput) -> None:
        """Cache the frozen part's output for a batch."""
        from safetensors.torch import save

        tensors = {HIDDEN: entered.hidden, FRAMES: entered.frames}
        plain: dict[str, Any] = {}
        for name, value in entered.keywords.items():
            (tensors if isinstance(value, torch.Tensor) else plain)[name] = value
        tensors[PLAIN] = torch.tensor(list(json.dumps(plain).encode()), dtype=torch.uint8)
        tensors = {name: value.detach().contiguous() for name, value in tensors.items()}
        check_free_space(self._folder, sum(value.nbytes for value in tensors.values()))
        content = save(tensors)
        atomic_write(self._path(ask), hashlib.sha256(content).digest() + content)

    def remove(self) -> None:
        """Delete the cache; everything in it can be computed again."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, ask: BatchIndex) -> Path:
        return self._folder / f"{ask.number:06d}.kept"


def check_cacheable(config: FinetuneConfig, wanted: Sequence[int], cut: int, least: int) -> None:
    """Raise `InputError` if the frozen output changes between epochs, or caching is no use.

    Parameters
    ----------
    wanted : numbers of the states that the head reads
    cut : number of layers whose output would be cached
    least : number of layers that stay frozen to the end
    """
    changing = [name for name in CHANGING if getattr(config, name)]
    reason = ""
    if changing:
        reason = f"{changing[0]} is {getattr(config, changing[0])!r}, which changes what is below"
    elif least == 0:
        reason = "freeze_encoder_layers is 0 (in the end), so that nothing stays as it was"
    elif min(wanted) < cut:
        reason = (
            f"states are {config.states!r}, and state {min(wanted)} lies below the cut at {cut}"
        )
    if reason:
        raise InputError(
            f"--cache-prefix: {reason}, expected frozen layers whose output never changes; leave "
            "out one of the two"
        )
