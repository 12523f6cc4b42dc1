"""The sides that `extract.py` compares: the loop a user would write, and ours; their encoders."""

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from extract_corpus import RATE

from spk.extract.encoder.encoder import Encoder
from spk.extract.options import ExtractOptions, parse_layers
from spk.extract.pipeline.runner import ExtractionRun
from spk.extract.planning import choose_segments
from spk.extract.profiling import Profile, recording
from spk.extract.run import configuration
from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter

BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "conv_dim": (512,) * 7,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
}
LARGE = {
    **BASE,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
NANO = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "conv_dim": (16,) * 7}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "nano": ("layer", {**NANO, "intermediate_size": 64}),  # for many segments
    "tiny": ("layer", {}),
    "base": ("group", BASE),
    "large": ("layer", LARGE),
}


class Plain:
    """The loop a user would write."""

    def __init__(self, folder: Path, device: str, dtype: torch.dtype) -> None:
        from transformers import AutoFeatureExtractor, AutoModel

        self.processor = AutoFeatureExtractor.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval().to(device, dtype)
        self.device, self.dtype = device, dtype

    @torch.inference_mode()
    def features(self, waveforms: list[np.ndarray]) -> np.ndarray:
        """Return mean and deviation of every state over each segment's own frames."""
        made = self.processor(
            waveforms,
            sampling_rate=RATE,
            padding=True,
            return_tensors="pt",
            return_attention_mask=True,
        )
        mask = made["attention_mask"].to(self.device)
        out = self.model(
            made["input_values"].to(self.device, self.dtype),
            attention_mask=mask if len(waveforms) > 1 else None,
            output_hidden_states=True,
        )
        states = (*out.hidden_states[:-1], out.last_hidden_state)
        counts = self.model._get_feat_extract_output_lengths(mask.sum(1)).tolist()
        rows = [
            torch.stack(
                [
                    torch.cat([state[i, :n].float().mean(0), state[i, :n].float().std(0, False)])
                    for state in states
                ]
            )
            for i, n in enumerate(counts)
        ]
        return torch.stack(rows).cpu().numpy()


def run_plain(plain: Plain, size: int, table: pd.DataFrame, root: Path) -> tuple[Any, float]:
    """Return features (segments, layers, dim) in the table's order, and the share of padding."""
    import soundfile

    features, real, padded = [], 0, 0
    for first in range(0, len(table), size):
        waveforms = []
        for line in table.iloc[first : first + size].itertuples():
            begin, end = round(line.start * RATE), round(line.end * RATE)
            with soundfile.SoundFile(str(root / line.audio)) as file:
                file.seek(begin)
                block = file.read(end - begin, dtype="float32", always_2d=True)
            waveforms.append(np.ascontiguousarray(block[:, 0]))
        real += sum(map(len, waveforms))
        padded += len(waveforms) * max(map(len, waveforms))
        features.append(plain.features(waveforms))
    return np.concatenate(features), 1 - real / padded


def run_ours(
    encoder: Encoder, options: ExtractOptions, table: pd.DataFrame, store: Path
) -> tuple[ExtractionRun, Profile]:
    """Extract into a fresh store, from files to committed rows."""
    shutil.rmtree(store, ignore_errors=True)
    spans, layers = Profile(), parse_layers(options.layers, encoder.layer_count)
    with StoreWriter(store, configuration(encoder, layers, options)) as writer:
        job = ExtractionRun(encoder, layers, options, writer, print)
        batches = job.plan(choose_segments(table, options))
        with recording(spans), job.shown(batches) as progress:
            job.encode(batches, lambda: False, progress)
    return job, spans


def read_back(store: Path, table: pd.DataFrame) -> np.ndarray:
    """Return a store's features (segments, layers, dim) in the table's order."""
    opened, names = FeatureStore.open(store), table["segment_id"].tolist()
    return np.stack([opened.read(names, layer) for layer in opened.layers], axis=1)


def compiled(encoder: Encoder) -> Encoder:
    """Return a copy of an encoder whose layers `torch.compile` has made; hooks stay outside."""
    model = copy.copy(encoder)
    model._model = copy.deepcopy(encoder._model)
    for layer in model._model.encoder.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    return model


def gflop(config: Any, lengths: np.ndarray, last: int) -> float:
    """Return GFLOP per second of audio that products of matrices take, layers 1 to `last`.

    Of segments of `lengths` s without padding; twice the multiplications, as is usual.
    """
    rate, width, hidden = float(RATE), 1, config.hidden_size
    cnn = 0.0
    for out, kernel, stride in zip(
        config.conv_dim, config.conv_kernel, config.conv_stride, strict=True
    ):
        rate /= stride
        cnn += rate * kernel * width * out
        width = out
    positions = config.num_conv_pos_embeddings * hidden**2 / config.num_conv_pos_embedding_groups
    frames = float((lengths**2).sum() / lengths.sum()) * rate  # that a frame attends to, on average
    layer = 4 * hidden**2 + 2 * hidden * config.intermediate_size + 2 * frames * hidden
    return 2 * (cnn + rate * (width * hidden + positions + last * layer)) / 1e9
