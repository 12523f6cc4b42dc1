"""Parts of a pass beside the way each was computed before, by turns in one run; a row per turn.

Usage: ``python benchmarks/extract_parts.py OUT.csv [--seconds S] [--repeat N] [--device cuda]``.

``front end``: the convolutions of wav2vec2's shape in bfloat16, before with windows that lie in
memory as strided views. ``log-mel``: w2v-BERT's frames of noise, before by transformers' extractor,
a segment at a time. ``pooling``: mean and deviation of one state of width 1,024, before in seven
passes; in a batch of equal lengths and in one with padding. Segments are of 3 s and a little less.
`error` is relative, to the same in float64 (log-mel: to the extractor). `cpu_s` is processor time;
the ratios printed last are of it (on a GPU of the wall clock), median with lowest and highest.
"""

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional

from spk.extract.encoder.device import DeviceTransfer, keep_freed_memory
from spk.extract.encoder.frontend import LogMel, convolve
from spk.extract.encoder.pooling import PaddingMask, pool

RATE, WIDTH = 16000, 1024
COLUMNS = ["part", "side", "device", "seconds", "threads", "wall_s", "cpu_s", "error", "load"]
Side = Callable[[], torch.Tensor]
Part = tuple[str, Side, Side, torch.Tensor]  # name, before, now, what is right


def lengths_of(seconds: float) -> list[int]:
    """Return samples of segments of 3 s and a little less that add up to about so many seconds."""
    return [3 * RATE - 700 * i for i in range(max(1, round(seconds / 3)))]


@torch.inference_mode()
def strided(layers: Any, batch: torch.Tensor) -> torch.Tensor:
    """Return the front end's output as before: a product of strided windows in each layer."""
    states = batch[..., None]
    for layer in layers:
        conv = layer.conv
        size, stride = conv.kernel_size[0], conv.stride[0]
        rows = states.as_strided(
            (len(states), (states.shape[1] - size) // stride + 1, size * states.shape[2]),
            (states.stride(0), stride * states.stride(1), 1),
        )
        states = functional.linear(rows, conv.weight.transpose(1, 2).flatten(1), conv.bias)
        states = layer.activation(layer.layer_norm(states))
    return states


def front_end(seconds: float, device: str) -> Part:
    """Return the convolutions in bfloat16; right is float64."""
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        feat_extract_norm="layer", conv_bias=True, num_hidden_layers=1, hidden_size=32,
        num_attention_heads=2, intermediate_size=32,
    )  # fmt: skip
    model = transformers.Wav2Vec2Model(config).eval().requires_grad_(False)
    layers = model.feature_extractor.conv_layers
    counts = [3 * RATE] * max(1, round(seconds / 3))
    batch = torch.randn(len(counts), counts[0]).bfloat16()
    lengths = torch.tensor(counts)
    with torch.inference_mode():
        layers.bfloat16().double()
        right = convolve(layers, batch.double(), lengths)
        layers.bfloat16().to(device)
    batch = batch.to(device)
    now = torch.inference_mode()(lambda: convolve(layers, batch, lengths))
    return "front end, bfloat16", lambda: strided(layers, batch), now, right


def log_mel(seconds: float, device: str) -> Part:
    """Return w2v-BERT's frames; right is the extractor itself."""
    rng = np.random.default_rng(0)
    rows = [rng.normal(0, 1000, count).astype(np.int16) for count in lengths_of(seconds)]
    extractor = transformers.SeamlessM4TFeatureExtractor()
    front, lane = LogMel(extractor), DeviceTransfer(torch.device(device))

    def before() -> torch.Tensor:
        made = [
            extractor(
                row / np.float32(32768), sampling_rate=RATE, pad_to_multiple_of=None,
                return_tensors="pt",
            )["input_features"][0]
            for row in rows
        ]  # fmt: skip
        return nn.utils.rnn.pad_sequence(made, batch_first=True).to(device)

    return "log-mel", before, lambda: front.prepare(rows, lane)[0], before()


def pooling(seconds: float, device: str, dtype: torch.dtype, *, padded: bool) -> Part:
    """Return mean and deviation of a state; right is float64, row by row."""
    torch.manual_seed(0)
    counts = torch.tensor([count // 320 for count in lengths_of(seconds)])
    counts = counts if padded else counts.amax().expand(len(counts))
    states = torch.randn(len(counts), int(counts.max()), WIDTH).add(3).to(device, dtype)
    real = PaddingMask(counts, states.shape[1], device)
    right = torch.stack(
        [
            torch.cat([row[:count].mean(0), row[:count].std(0, correction=0)])
            for row, count in zip(states.double(), counts.tolist(), strict=True)
        ]
    )
    name = f"pooling, {str(dtype).removeprefix('torch.')}, {'padding' if padded else 'no padding'}"
    return name, lambda: seven_passes(states, real), lambda: pool(states, real), right


def seven_passes(states: torch.Tensor, real: PaddingMask) -> torch.Tensor:
    """Return mean and deviation as before."""
    states, count = states.float(), real.count[:, None]
    mean = real.only(states).sum(1) / count
    std = (real.only(states - mean[:, None]).square().sum(1) / count).sqrt()
    return torch.cat([mean, std], dim=1)


def measured(side: Side, right: torch.Tensor, device: str) -> dict[str, Any]:
    """Run one side once."""
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    wait()
    load, begun, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
    output = side()
    wait()
    wall, spent = time.perf_counter() - begun, time.process_time() - cpu
    right = right.to(output.device)
    error = float((output.double() - right.double()).norm() / right.double().norm())
    return {"wall_s": f"{wall:.5f}", "cpu_s": f"{spent:.5f}", "error": f"{error:.2e}", "load": load}


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0, help="audio in a batch")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def main() -> None:
    """Measure all parts by turns, write a row per turn and print the ratios."""
    args = parse()
    parts = [
        front_end(args.seconds, args.device),
        log_mel(args.seconds, args.device),
        *(
            pooling(args.seconds, args.device, dtype, padded=padded)
            for dtype in (torch.float32, torch.bfloat16)
            for padded in (False, True)
        ),
    ]
    new = not args.out.exists()
    with args.out.open("a", newline="") as file, keep_freed_memory(torch.device(args.device)):
        sheet = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            sheet.writeheader()
        for name, before, now, right in parts:
            ratios = []
            measured(before, right, args.device), measured(now, right, args.device)
            for _ in range(args.repeat):
                rows = [measured(side, right, args.device) for side in (before, now)]
                facts = {"part": name, "device": args.device, "seconds": args.seconds}
                facts["threads"] = torch.get_num_threads()
                for side, row in zip(("before", "now"), rows, strict=True):
                    sheet.writerow({"side": side, **facts, **row})
                clock = "cpu_s" if args.device == "cpu" else "wall_s"
                ratios.append(float(rows[0][clock]) / float(rows[1][clock]))
            middle = statistics.median(ratios)
            errors = " and ".join(row["error"] for row in rows)
            print(f"{name}: {middle:.2f} ({min(ratios):.2f}-{max(ratios):.2f}), errors {errors}")
            file.flush()


if __name__ == "__main__":
    main()
