"""Sections of the probe that run on the device: speed of the stream, kernels, exactness, training.

A section takes `Inputs` and `Findings`. `stream` has batches as a run has them, each of a new
shape, one under way while the next is made ready.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from findings import Findings, device_ms, host_ms, peak_gb, relative, wait_for
from inputs import IDENTITY, RATE, Inputs
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from spk.extract.encoder.encoder import Encoder
from spk.extract.encoder.frontend import Waveforms
from spk.extract.encoder.loading import LoadedEncoder
from spk.extract.encoder.pooling import PaddingMask, pool
from spk.extract.encoder.varlen import attention_of, pack

Batches = Sequence[Sequence[np.ndarray]]


@contextmanager
def cudnn_attention() -> Iterator[None]:
    """While open, cuDNN's attention is allowed whatever spk sets."""
    torch.backends.cuda.enable_cudnn_sdp(True)
    with mock.patch("torch.backends.cuda.enable_cudnn_sdp", autospec=True):
        yield


def stream(inputs: Inputs, findings: Findings) -> None:
    """Measure whole batches: new shapes and known ones, a mask, sizes, cuDNN's attention."""
    usual_encoder, count, usual = inputs.encoder(torch.bfloat16), inputs.count, inputs.seconds

    def measure(
        case: str, seconds: float, batches: Batches, encoder: Encoder = usual_encoder
    ) -> None:
        try:
            audio = sum(len(row) for batch in batches for row in batch) / RATE
            peak_gb(inputs.device)
            spent = _stream_seconds(encoder, inputs, batches)
        except Exception as problem:  # a kernel may refuse a shape, or memory be short
            findings.fail("stream", problem, case=case, batch_seconds=seconds)
            return
        findings.say(
            "stream",
            case=case,
            batch_seconds=seconds,
            batches=len(batches),
            audio=round(audio),
            ms_a_batch=round(spent / len(batches) * 1e3, 1),
            times_real_time=round(audio / spent),
            peak_gb=peak_gb(inputs.device),
        )

    made = inputs.batches(usual, count)
    measure("warm up", usual, inputs.batches(usual, 2, 9))
    measure("as it is, new shapes", usual, made)
    measure("as it is, shapes known", usual, made)
    masked = inputs.encoder(torch.bfloat16, masked=True)
    measure("with a mask, new shapes", usual, inputs.batches(usual, count, 3), masked)
    measure("with a mask, shapes known", usual, made, masked)
    del masked
    for share in (0.25, 0.5, 2, 4):
        few = max(2, round(count / share / 2))
        batches = inputs.batches(share * usual, few, 2)
        measure("as it is, new shapes", share * usual, batches)
    equal = [[batch[0][: len(batch[-1])]] * len(batch) for batch in made]
    measure("no mask, new shapes", usual, equal)
    if inputs.device.type == "cuda":
        with cudnn_attention():
            measure("with cuDNN attention, new shapes", usual, inputs.batches(usual, count, 1))
            measure("with cuDNN attention, shapes known", usual, inputs.batches(usual, count, 1))


def _stream_seconds(encoder: Encoder, inputs: Inputs, batches: Batches) -> float:
    begun, landing = time.perf_counter(), None
    for rows in batches:
        waiting = encoder.encode_async(rows, inputs.layers, "mean+std", 40.0)
        if landing:
            landing.rows()
        landing = waiting
    if landing:
        landing.rows()
    return time.perf_counter() - begun


def kernels(inputs: Inputs, findings: Findings) -> None:
    """Tell which kernels a batch of a known shape spends its time in, and what launching costs."""
    from torch.profiler import ProfilerActivity, profile

    encoder, rows = inputs.encoder(torch.bfloat16), _middle(inputs)
    gpu = inputs.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]

    def work() -> object:
        return encoder.encode(rows, layers=inputs.layers)

    work()
    with profile(activities=activities) as watched:
        work()
        wait_for(inputs.device)
    cost = "self_device_time_total" if gpu else "self_cpu_time_total"
    events = [event for event in watched.key_averages() if getattr(event, cost)]
    if gpu:  # the operators that launch count the same time again
        events = [event for event in events if "cuda" in str(event.device_type).lower()]
    events.sort(key=lambda event: -getattr(event, cost))
    findings.say(
        "kernels",
        shape=(len(rows), len(rows[0])),
        total_ms=round(sum(getattr(event, cost) for event in events) / 1e3, 2),
        launches=sum(event.count for event in events),
    )
    for event in events[:28]:
        ms = round(getattr(event, cost) / 1e3, 3)
        findings.say("kernel", ms=ms, count=event.count, name=event.key[:110])
    spent = host_ms(
        lambda: encoder.encode_async(rows, inputs.layers, "mean+std", 40.0), inputs.device
    )
    findings.say("a batch", ms_of_the_host=spent[0], ms_until_done=spent[1])


def _middle(inputs: Inputs) -> list[np.ndarray]:
    batches = inputs.batches(inputs.seconds, inputs.count)
    return batches[len(batches) // 2]


@torch.inference_mode()
def parts(inputs: Inputs, findings: Findings) -> None:
    """Measure each part of the encoder alone, on a batch of a known shape."""
    encoder, rows, device = inputs.encoder(torch.bfloat16), _middle(inputs), inputs.device
    rows[-1] = rows[-1][: len(rows[-1]) * 3 // 4]  # there is padding, in a rehearsal too
    model, front = encoder._model, encoder._front
    batch, lengths = front.prepare(rows, encoder._lane)
    frames, narrow = front.frames(lengths), batch.to(torch.bfloat16)
    real = PaddingMask(frames, int(frames.max()), device)
    hidden = front(narrow, lengths)
    states = model.feature_projection(hidden)[0]
    layer, positions, time_ = model.encoder.layers[0], model.encoder.pos_conv_embed, states.shape[1]
    mask = None if real.mask is None else real.mask[:, None, None].expand(-1, 1, time_, -1)
    packing = pack(real, inputs.kernel(encoder))

    def without_mask(part: nn.Module) -> Callable[[], object]:
        def work() -> object:
            with attention_of(model.encoder, packing) as packed:
                return part(states, **packed)

        return work

    works: dict[str, Callable[[], object]] = {
        "front end": lambda: front(narrow, lengths),
        "projection": lambda: model.feature_projection(hidden),
        "positional convolution": lambda: positions(states),
        "one layer, no mask": lambda: layer(states, attention_mask=None),
        "one layer, mask": lambda: layer(states, attention_mask=mask),
        "one layer, packed": without_mask(layer),
        "attention, mask": lambda: layer.attention(states, attention_mask=mask),
        "attention, packed": without_mask(layer.attention),
        "feed forward": lambda: layer.feed_forward(states),
        "layer norm": lambda: layer.layer_norm(states),
        "pooling of one layer": lambda: pool(states, real),
    }
    if packing is None:  # no kernel for this card
        works = {name: work for name, work in works.items() if "packed" not in name}
    for name, work in works.items():
        findings.say("part", part=name, ms=device_ms(work, device))
    new = [host_ms(lambda k=k: positions(states[:, k:]), device)[1] for k in range(1, 7)]
    findings.say("part", part="positional convolution, six new lengths", ms_until_done=new)
    _products(inputs, findings, states.shape[0] * time_)


def _products(inputs: Inputs, findings: Findings, rows: int) -> None:
    """Measure the shapes of the layers' products, and what memory gives."""
    wide, narrow = inputs.shape["intermediate_size"], inputs.shape["hidden_size"]
    shapes = {"q, k, v, out": (narrow, narrow), "in": (wide, narrow), "out": (narrow, wide)}
    made = {"device": inputs.device, "dtype": torch.bfloat16}
    for name, (out, given) in shapes.items():
        x, weight = torch.randn(rows, given, **made), torch.randn(out, given, **made)
        ms = device_ms(lambda x=x, weight=weight: functional.linear(x, weight), inputs.device)
        tflops = round(2 * rows * out * given / ms / 1e9, 1)
        findings.say("product", which=name, rows=rows, ms=ms, tflops=tflops)
    size = 1 << (31 if inputs.device.type == "cuda" else 24)
    block = torch.empty(size, device=inputs.device, dtype=torch.uint8)
    target = torch.empty_like(block)
    ms = device_ms(lambda: target.copy_(block), inputs.device)  # one tensor onto itself is no work
    findings.say("copy", gb_per_s=round(2 * size / ms / 1e6))


def attention(inputs: Inputs, findings: Findings) -> None:
    """Tell what a new shape costs in each attention kernel, a known one, and whether all agree."""
    kinds = {
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
    }
    shapes = [(41, 291), (60, 199), (40, 299), (24, 499), (8, 1499)]
    if inputs.device.type != "cuda":
        kinds, shapes = {"math": SDPBackend.MATH}, [(3, 20), (2, 31)]
    for masked in (False, True):
        for kind, backend in kinds.items():
            if masked and kind == "flash":  # takes no mask
                continue
            rows = [_one_attention(inputs, backend, shape, masked, findings) for shape in shapes]
            done = [row for row in rows if row]
            findings.say(
                "attention",
                kind=kind,
                masked=masked,
                shapes=shapes,
                first_call_ms=[row[0] for row in done],
                again_ms=[row[1] for row in done],
                error=f"{max((row[2] for row in done), default=np.nan):.1e}",
            )


@torch.inference_mode()
def _one_attention(
    inputs: Inputs,
    backend: SDPBackend,
    shape: tuple[int, int],
    masked: bool,
    findings: Findings,
) -> tuple[float, float, float] | None:
    """Return ms of the first call and of later ones, and the error against float64."""
    heads, (n, time_), device = inputs.shape["num_attention_heads"], shape, inputs.device
    each = inputs.shape["hidden_size"] // heads
    made = {"device": device, "dtype": torch.bfloat16}
    qkv = [torch.randn(n, time_, heads, each, **made).transpose(1, 2) for _ in range(3)]
    frames = torch.randint(max(2, time_ - 9), time_ + 1, (n,), device=device)
    mask = (torch.arange(time_, device=device)[None] < frames[:, None])[:, None, None]
    mask = mask.expand(n, 1, time_, time_) if masked else None

    def work() -> torch.Tensor:
        return functional.scaled_dot_product_attention(*qkv, attn_mask=mask)

    try:
        with sdpa_kernel([backend]):
            first, again, output = host_ms(work, device)[1], device_ms(work, device, 5), work()
    except Exception as problem:
        findings.fail("attention", problem, backend=str(backend), masked=masked, shape=shape)
        return None
    exact = functional.scaled_dot_product_attention(
        *(x[:2].double() for x in qkv), attn_mask=None if mask is None else mask[:2]
    )
    return first, again, float((output[:2].double() - exact).norm() / exact.norm())


def exactness(inputs: Inputs, findings: Findings) -> None:
    """Compare features: in a batch and alone, on the device and a CPU, in both number formats."""
    rows = _middle(inputs)[:8]  # several rows: two alike may round alike
    rows = [row[: max(RATE // 2, len(row) - 1600 * i)] for i, row in enumerate(rows)]

    def alone(encoder: Encoder) -> np.ndarray:
        return np.concatenate([encoder.encode([row], layers=inputs.layers)[0] for row in rows])

    wide, narrow = inputs.encoder(torch.float32), inputs.encoder(torch.bfloat16)
    exact, together = alone(wide), wide.encode(rows, layers=inputs.layers)[0]
    findings.say(
        "float32 in a batch against alone (promise: 1e-5)", largest=relative(together, exact)
    )
    if inputs.device.type == "cuda":
        findings.say("float32 against a CPU's", largest=_against_cpu(wide, rows[-2:], inputs))
    single = alone(narrow)
    features = narrow.encode(rows, layers=inputs.layers)[0]
    findings.say("bfloat16 in a batch against float32 alone", largest=relative(features, exact))
    findings.say("bfloat16 in a batch against alone", largest=relative(features, single))
    masked = inputs.encoder(torch.bfloat16, masked=True).encode(rows, layers=inputs.layers)[0]
    findings.say(
        "bfloat16 by a mask in a batch against float32 alone", largest=relative(masked, exact)
    )
    if inputs.device.type == "cuda":
        with cudnn_attention():
            features = narrow.encode(rows, layers=inputs.layers)[0]
        name = "bfloat16 with cuDNN attention in a batch against float32 alone"
        findings.say(name, largest=relative(features, exact))


def _against_cpu(encoder: Encoder, rows: list[np.ndarray], inputs: Inputs) -> str:
    model = copy.deepcopy(encoder._model).cpu()
    parts_ = LoadedEncoder(model, Waveforms(model, normalized=True), {}, RATE)
    cpu = Encoder(parts_, device=torch.device("cpu"), dtype=torch.float32)
    torch.set_num_threads(16)
    features = [side.encode(rows, layers=inputs.layers)[0] for side in (encoder, cpu)]
    torch.set_num_threads(1)
    return relative(*features)


def training(inputs: Inputs, findings: Findings) -> None:
    """Take steps of every way to train, under autocast as Lightning sets it."""
    gpu = inputs.device.type == "cuda"
    low: dict[str, Any] = {"dtype": "bfloat16" if gpu else "float32"}
    cases: dict[str, dict[str, Any]] = {
        "float32": {"dtype": "float32"},
        "low": low,
        "checkpointing": {**low, "gradient_checkpointing": True},
        "masks": {**low, "mask_seconds": 0.3, "mask_dims": 0.1},
        "all open": {**low, "freeze_encoder_layers": 0, "freeze_feature_extractor": False},
        "mix": {**low, "states": "mix", "freeze_encoder_layers": 0},
    }
    for name, settings in cases.items():
        try:
            _train(name, settings, inputs, findings)
        except Exception as problem:
            findings.fail("training", problem, case=name)


def _train(name: str, settings: dict[str, Any], inputs: Inputs, findings: Findings) -> None:
    from spk.finetune.config import FinetuneConfig
    from spk.finetune.data.dataset import Batch, BatchIndex
    from spk.finetune.model.checkpoint import autocast
    from spk.finetune.model.heads import loss
    from spk.finetune.model.module import ModelIdentity, SpeakerModule

    rows = [row.astype(np.float32) / 32768 for row in inputs.batches(inputs.seconds / 6, 20, 6)[10]]
    codes, device = torch.arange(len(rows)) % 3, inputs.device
    frozen = min(8, inputs.shape["num_hidden_layers"] - 1)
    config = FinetuneConfig(**{"freeze_encoder_layers": frozen, "dropout": 0.0, **settings})
    rates = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
    subject = ModelIdentity("probe", tuple("ABC"), dict.fromkeys(IDENTITY, "probe"))
    module = SpeakerModule(inputs.parts(**dict.fromkeys(rates, 0.0)), subject, config)
    module = module.to(device).train()
    optimiser = module.configure_optimizers()
    batch = Batch(BatchIndex(0, 0, tuple(range(len(rows)))), rows, codes)

    def step() -> torch.Tensor:
        with autocast(config, device):
            batch_loss = loss(module(batch), codes.to(device), config)
        optimiser.zero_grad()
        batch_loss.backward()
        optimiser.step()
        return batch_loss.detach()

    peak_gb(device)
    first = float(step())
    spent = min(host_ms(step, device)[1] for _ in range(3))
    findings.say(
        "training",
        case=name,
        loss_first=round(first, 4),
        loss_fifth=round(float(step()), 4),
        step_ms=spent,
        audio=round(sum(map(len, rows)) / RATE, 1),
        peak_gb=peak_gb(device),
    )
