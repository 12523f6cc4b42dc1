"""How much audio is trained on per second, and in how much memory: a plain loop against ours.

Usage: ``python benchmarks/finetune.py OUT.csv [--device cuda] [--size large] [--seconds 600]``.
The encoder has random weights in the shape of `--size`; segments have random lengths with the
median and spread of AISHELL-4's of at least 1.5 s. The plain side is the loop of the reference
project: two segments a batch as they come, padded, without a mask, all through the model of
transformers, of which the convolutions and `--frozen` layers have no gradient. Ours is the module
that ``spk-finetune`` trains, fed by its batches. Every case takes the same segments once to warm up
(which fills the cache of the frozen layers, where it is on) and once for time. A row is written as
it is made; a case that fails has its reason there, and the next one runs.
"""

import argparse
import csv
import gc
import resource
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from spk.extract.encoder.frontend import Waveforms as FrontEnd
from spk.extract.encoder.loading import LoadedEncoder
from spk.extract.encoder.transformer import fold_weight_norm
from spk.finetune.config import FinetuneConfig
from spk.finetune.data.dataset import Batch, BatchSampler
from spk.finetune.model.checkpoint import autocast
from spk.finetune.model.frozen_cache import FrozenLayerCache
from spk.finetune.model.heads import loss
from spk.finetune.model.module import ModelIdentity, SpeakerModule

SIZES = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 8, "num_attention_heads": 4},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
}
COLUMNS = ("case", "audio_seconds_per_second", "peak_gb", "failed", "times_plain", "setting")
RATE, SPEAKERS = 16000, 7
IDENTITY = ("encoder", "revision", "weights_sha256", "encoder_config_sha256", "untrained")


def make_parts(size: str) -> LoadedEncoder:
    """Return a random encoder of the default's kind: layer norm, normalised waveforms."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    shape = SIZES[size]
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        **shape,
        intermediate_size=4 * shape["hidden_size"],
        conv_dim=(128 if size == "tiny" else 512,) * 7,
        feat_extract_norm="layer",
        conv_bias=True,
        do_stable_layer_norm=True,
        layerdrop=0.0,
    )
    model = fold_weight_norm(Wav2Vec2Model(config))
    identity = dict.fromkeys(IDENTITY, f"random, {size}")
    return LoadedEncoder(model, FrontEnd(model, normalized=True), identity, rate=RATE)


def draw(seconds: float) -> list[np.ndarray]:
    """Return noise in the lengths of AISHELL-4's turns: median 3.5 s, 1.5 to 31 s."""
    rng = np.random.default_rng(0)
    lengths: list[float] = []
    while sum(lengths) < seconds:
        lengths.append(float(np.clip(rng.lognormal(np.log(3.5), 0.6), 1.5, 31)))
    sizes = [round(length * RATE) for length in lengths]
    return [rng.standard_normal(size).astype(np.float32) for size in sizes]


def plain(waveforms: list[np.ndarray], args: argparse.Namespace) -> float:
    """Train on every segment twice as the reference does; return the seconds of the second time."""
    device = torch.device(args.device)
    model = make_parts(args.size).model.to(device)
    model.feature_extractor.requires_grad_(False)
    model.encoder.layers[: args.frozen].requires_grad_(False)
    model.train()
    model.config.apply_spec_augment = False
    head = torch.nn.Linear(model.config.hidden_size, SPEAKERS).to(device)
    parameters = [*(p for p in model.parameters() if p.requires_grad), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-5)
    for _ in range(2):
        started = time.perf_counter()
        for first in range(0, len(waveforms), 2):
            rows = [torch.from_numpy(row) for row in waveforms[first : first + 2]]
            batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
            scores = head(model(batch).last_hidden_state.mean(1))
            codes = torch.arange(first, first + len(rows), device=device) % SPEAKERS
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(scores, codes).backward()
            optimiser.step()
        _wait(device)
    return time.perf_counter() - started


def ours(waveforms: list[np.ndarray], config: FinetuneConfig, args: argparse.Namespace) -> float:
    """Train on every segment twice with our module; return the seconds of the second time."""
    device = torch.device(args.device)
    parts = make_parts(args.size)
    subject = ModelIdentity("benchmark", tuple("ABCDEFG"), parts.provenance)
    with tempfile.TemporaryDirectory() as folder:
        cache = FrozenLayerCache(Path(folder) / "prefix", "one") if config.cache_prefix else None
        module = SpeakerModule(parts, subject, config, cache=cache).to(device)
        module.train()
        optimiser = module.configure_optimizers()
        batches = BatchSampler([len(row) / RATE for row in waveforms], config)
        for _ in range(2):
            started = time.perf_counter()
            for ask in batches:
                codes = torch.tensor(ask.places) % SPEAKERS
                with autocast(config, device):
                    scores = module(Batch(ask, [waveforms[i] for i in ask.places], codes))
                    batch_loss = loss(scores, codes.to(device), config)
                optimiser.zero_grad()
                batch_loss.backward()
                optimiser.step()
            _wait(device)
        return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cases(args: argparse.Namespace) -> dict[str, FinetuneConfig]:
    """Return the settings to compare, by name."""
    base = FinetuneConfig(
        freeze_encoder_layers=args.frozen,
        batch_seconds=args.batch_seconds,
        dtype="float32",
        dropout=0.0,
    )
    named = {"ours, float32": base, "ours, float32, cached": replace(base, cache_prefix=True)}
    if args.bfloat16 or args.device.startswith("cuda"):
        low = replace(base, dtype="bfloat16")
        named |= {"ours, bfloat16": low, "ours, bfloat16, cached": replace(low, cache_prefix=True)}
        saving = replace(low, gradient_checkpointing=True)
        named["ours, bfloat16, gradient checkpointing"] = saving
    return named


def measured(name: str, train: Callable[[], float], audio: float, device: str) -> dict[str, object]:
    """Return a row: audio seconds per second, and the peak memory in GB; or why it failed."""
    cuda = device.startswith("cuda")
    if cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        speed, failed = round(audio / train(), 2), ""
    except Exception as problem:
        traceback.print_exc()
        speed, failed = None, f"{type(problem).__name__}: {problem}"[:200]
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # of the process so far
    peak = torch.cuda.max_memory_allocated() if cuda else rss
    return {
        "case": name,
        "audio_seconds_per_second": speed,
        "peak_gb": round(peak / 1e9, 2),
        "failed": failed,
    }


def parse() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description="Training speed: a plain loop against ours.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--frozen", type=int, default=None, help="layers; a third by default")
    parser.add_argument("--seconds", type=float, default=120.0, help="of audio per case")
    parser.add_argument("--batch-seconds", type=float, default=40.0)
    parser.add_argument("--bfloat16", action="store_true", help="on a CPU too")
    args = parser.parse_args()
    args.frozen = SIZES[args.size]["num_hidden_layers"] // 3 if args.frozen is None else args.frozen
    return args


def main() -> None:
    """Measure each case; write its row, with the ratio to the plain loop, as soon as it is made."""
    args = parse()
    waveforms = draw(args.seconds)
    audio = sum(map(len, waveforms)) / RATE
    setting = f"{args.size}, {args.frozen} frozen, {args.device}, torch {torch.__version__}, "
    setting += f"{torch.get_num_threads()} threads"
    sides = {"plain, float32": partial(plain, waveforms, args)}
    sides |= {name: partial(ours, waveforms, config, args) for name, config in cases(args).items()}
    first = None
    with args.out.open("w", newline="") as file:
        sheet = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        sheet.writeheader()
        for name, train in sides.items():
            row = measured(name, train, audio, args.device)
            speed = row["audio_seconds_per_second"]
            first = speed if name.startswith("plain") else first
            row["times_plain"] = round(speed / first, 2) if speed and first else None
            row["setting"] = setting
            print(row, flush=True)
            sheet.writerow(row)
            file.flush()


if __name__ == "__main__":
    main()
