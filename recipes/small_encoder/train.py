"""Train one small encoder from packed voices (pack.py) to weights.

    python train.py PACKED OUT --max-seconds 3600 --device cpu

OUT then holds `log.jsonl`, `best.tar` and `last.tar` (each a folder that transformers loads:
weights in float16, config, front-end file), and `checkpoint.pt` for --resume.
"""

import argparse
import json
import math
import random
import shutil
import tarfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import sound
import student as students
import torch
from lines import Log
from prepare import baselines, prepare
from voices import HOP

LENGTHS = (24000, 32000, 40000, 48000)  # samples of a crop
SCENES = 384  # drawn beforehand for crops of each length, on a CPU


@dataclass
class Config:
    """What is trained and how."""

    name: str = "small"
    front: str = "wave"  # or "mel"
    width: int = 192
    inner: int = 384
    layers: int = 4
    heads: int = 4
    kernel: int = 9
    stride: int = 4
    dropout: float = 0.0
    losses: dict = field(default_factory=lambda: {2: 0.5, 4: 1.0})  # layer: weight
    teacher: float = 8.0  # weight of the distance to the teacher
    speaker: float = 1.0  # weight of the margin loss over speakers
    margin: float = 0.2
    rate: float = 1.5e-3  # learning rate at its highest
    decay: float = 0.05
    batch: float = 128.0  # s of sound in a step; 1280 on a GPU
    average: float = 0.998
    strength: float = 1.0  # of augmentation
    seed: int = 1
    half: bool = True  # products in bfloat16, where the device has them


class Lesson:
    """One training: its state, steps, checks against the tasks, and files."""

    def __init__(self, config, crops, device, log, out, work=None):
        self.config, self.crops, self.device, self.log, self.out = config, crops, device, log, out
        self.work = work or out
        torch.manual_seed(config.seed)
        self.rng = random.Random(config.seed)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        crops.generator = self.generator
        make = students.make_wave_encoder if config.front == "wave" else students.make_encoder
        encoder = make(
            config.width,
            config.inner,
            config.layers,
            config.heads,
            config.kernel,
            config.stride,
            config.dropout,
        )
        losses = {int(k): v for k, v in config.losses.items()}
        self.student = students.Student(encoder, losses, crops.classes).to(device).train()
        self.average = students.average_of(self.student.encoder)
        self.logmel = sound.LogMel(config.stride, device)
        self.optimizer = torch.optim.AdamW(
            self._groups(), lr=config.rate, betas=(0.9, 0.98), fused=device.type == "cuda"
        )
        self.batch, self.step, self.spent, self.crops_seen = config.batch, 0, 0.0, 0
        self.best = -1.0
        self.augmenting = True
        self.clock = time.time
        size = sum(p.numel() for p in encoder.parameters())
        log(event="encoder", parameters=size, classes=crops.classes, **asdict(config))

    def _groups(self):
        thick = [p for p in self.student.parameters() if p.ndim > 1]
        thin = [p for p in self.student.parameters() if p.ndim <= 1]
        return [
            {"params": thick, "weight_decay": self.config.decay},
            {"params": thin, "weight_decay": 0.0},
        ]

    def autocast(self):
        """Return bfloat16 autocast where the device has products of it."""
        able = self.device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        if able and self.config.half:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def losses(self):
        """Draw a batch; return the loss and what is logged, all tensors."""
        config = self.config
        samples = self.rng.choice(LENGTHS)
        rows = max(16, int(self.batch * sound.RATE / samples) // 8 * 8)
        with torch.no_grad():
            waves, label, said = self.crops.draw(rows, samples)
            waves = self._augmented(waves)
            features = waves
            if config.front == "mel":
                features = self.logmel(waves, lambda mels: sound.hide(mels, self.generator))
        with self.autocast():
            hidden = students.states(self.student.encoder, features)
        total, shown = 0.0, []
        margin = config.margin * min(1.0, self.progress / 0.3)
        for layer, weight in self.student.losses.items():
            head = self.student.heads[str(layer)]
            speaker, distance, right = head(students.pooled(hidden[layer]), label, said, margin)
            part = config.speaker * speaker + config.teacher * distance
            total = total + weight * part
            shown = [speaker.detach(), distance.detach(), right]
        self.crops_seen += rows
        return total, torch.stack(shown)

    def _augmented(self, waves):
        if not self.augmenting:
            return waves
        try:
            waves = sound.pause(waves, self.generator)
            if self.device.type == "cpu":
                return self._bank(waves.shape[1]).augment(waves, self.generator)
            scene = sound.draw_scenes(len(waves), self.device, self.generator, self.config.strength)
            return sound.augment(waves, scene, self.generator)
        except torch.OutOfMemoryError:
            raise
        except Exception as fault:  # a run on a lent machine must not be lost
            self.augmenting = False
            self.log(event="augmentation failed and is off", fault=repr(fault)[:500])
            return waves

    def _bank(self, length):
        banks, key = self.crops.banks, (length, self.config.strength)
        if key not in banks:
            generator = torch.Generator().manual_seed(length)
            banks[key] = sound.SceneBank(length, SCENES, generator, self.config.strength)
        return banks[key]

    def train_step(self, progress):
        """Take one step; halve the batch where memory ran out."""
        self.progress = progress
        config = self.config
        warm = min(1.0, (self.step + 1) / 200)
        rate = config.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        try:
            loss, shown = self.losses()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        except torch.OutOfMemoryError:
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            self.batch /= 2
            self.log(event="out of memory", batch=self.batch)
            if self.batch < 40:
                raise
            return None
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 2.0)
        self.optimizer.step()
        self.step += 1
        decay = min(config.average, (1 + self.step) / (10 + self.step))
        students.follow(self.average, self.student.encoder, decay)
        return shown

    def run(self, seconds, steps=0, tasks=None, checks=4, save_every=60.0, every_layer=True):
        """Train for so many seconds (checks included), or steps; return the last scores."""
        begun, due, saved = self.clock(), 1, time.time()
        resumed, sums, count, last_line = self.spent, None, 0, time.time()
        scores = {}
        while True:
            self.spent = resumed + self.clock() - begun
            progress = max(
                self.spent / seconds if seconds > 0 else 0.0, self.step / steps if steps else 0.0
            )
            if progress >= 1 or (seconds <= 0 and not steps):
                break
            shown = self.train_step(progress)
            if shown is not None:
                sums = shown if sums is None else sums + shown
                count += 1
            if self.step % 25 == 0 and time.time() - last_line > 2 and count:
                speaker, distance, right = (sums / count).tolist()
                self.log(
                    event="train",
                    name=self.config.name,
                    step=self.step,
                    crops=self.crops_seen,
                    speaker=round(speaker, 3),
                    distance=round(distance, 4),
                    right=round(right, 4),
                )
                sums, count, last_line = None, 0, time.time()
                if not math.isfinite(speaker + distance):
                    self.recover()
            if tasks and progress * (checks) >= due and progress < 0.97:
                due = int(progress * checks) + 1
                scores = self.check(tasks)
            if time.time() - saved > save_every:
                self.save_checkpoint()
                saved = time.time()
        if tasks:
            scores = self.check(tasks, every_layer)
        return scores

    def recover(self):
        """Go back to the average where the weights are no numbers."""
        good = all(bool(p.isfinite().all()) for p in self.average.parameters())
        self.log(event="loss is no number", average_is_good=good)
        with torch.no_grad():
            for mine, theirs in zip(
                self.student.encoder.parameters(), self.average.parameters(), strict=True
            ):
                mine.copy_(theirs if good else torch.nan_to_num(theirs))
            for head in self.student.heads.values():
                for value in [*head.parameters(), *head.buffers()]:
                    value.copy_(torch.nan_to_num(value))
        self.optimizer.state.clear()
        self.config.rate /= 2

    @torch.no_grad()
    def features(self, waves):
        """Return pooled states of the average, (rows, layers + 1, 2 x width)."""
        inputs = self.logmel(waves) if self.config.front == "mel" else waves
        hidden = students.states(self.average, inputs)
        return torch.stack([students.pooled(h) for h in hidden], 1)

    def check(self, tasks, every_layer=False):
        """Score the average of the weights; save it where it is the best so far."""
        made = tasks.encode(self.features)
        last = self.config.layers
        scores = tasks.scores(made[:, last])
        self.log(
            event="check",
            name=self.config.name,
            step=self.step,
            crops=self.crops_seen,
            seconds=round(self.spent, 1),
            **scores,
        )
        if every_layer:
            width = self.config.width
            for layer in range(last + 1):
                row = tasks.scores(made[:, layer])
                self.log(event="layer", name=self.config.name, layer=layer, **row)
            row = tasks.scores(made[:, last, :width])
            self.log(event="mean only", name=self.config.name, layer=last, **row)
        if scores["score"] > self.best:
            self.best = scores["score"]
            self.save("best")
        return scores

    def save(self, which):
        """Write the average as OUT/NAME-WHICH.tar."""
        folder = self.work / f"{self.config.name}-{which}"
        shutil.rmtree(folder, ignore_errors=True)
        extractor = students.front_end_file(self.average, self.logmel)
        students.save_encoder(self.average, extractor, folder)
        path = self.out / f"{self.config.name}-{which}.tar"
        with tarfile.open(path.with_suffix(".part"), "w") as tar:
            tar.add(folder, arcname=folder.name)
        path.with_suffix(".part").replace(path)

    def save_checkpoint(self):
        """Write all that --resume needs."""
        path = self.work / "checkpoint.pt"
        torch.save(
            {
                "config": asdict(self.config),
                "student": self.student.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "torch": torch.get_rng_state(),
                "random": self.rng.getstate(),
                "numbers": (self.step, self.spent, self.crops_seen, self.best, self.batch),
            },
            path.with_suffix(".part"),
        )
        path.with_suffix(".part").replace(path)

    def resume(self):
        """Go on from the checkpoint, if there is one."""
        path = self.work / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location="cpu", weights_only=False)
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        self.rng.setstate(state["random"])
        self.step, self.spent, self.crops_seen, self.best, self.batch = state["numbers"]
        self.log(event="resumed", step=self.step, seconds=self.spent)


def fastest_convolution(lesson, log):
    """Time both ways to compute depthwise convolutions; return the faster one's name."""
    times = {}
    for name in ("native", "shifted"):
        try:
            students.set_convolution(lesson.student.encoder, name)
            for count in (3, 8):
                synchronize(lesson.device)
                begun = time.time()
                for _ in range(count):
                    lesson.progress = 0.0
                    loss, _ = lesson.losses()
                    loss.backward()
                    lesson.optimizer.zero_grad(set_to_none=True)
                synchronize(lesson.device)
                times[name] = round((time.time() - begun) / count, 4)
        except Exception as fault:
            log(event="convolution failed", way=name, fault=repr(fault)[:300])
    log(event="convolution", seconds_per_step=times)
    return min(times, key=times.get) if times else "native"


def synchronize(device):
    """Wait for a GPU; a CPU is never behind."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def parse():
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packed", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--max-seconds", type=float, default=0.0, help="of training")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--save-every", type=float, default=60.0, help="s between checkpoints")
    parser.add_argument("--checks", type=int, default=8, help="on held-out speakers; 0: none")
    parser.add_argument("--config", type=json.loads, default={}, help="JSON: changes to Config")
    parser.add_argument("--limit", type=int, default=0, help="speakers, for a rehearsal")
    parser.add_argument("--teacher-hop", type=int, default=HOP, help="samples")
    parser.add_argument("--cache", type=Path, help="folder: the next start takes seconds")
    parser.add_argument("--meetings", type=int, default=60)
    options = parser.parse_args()
    if not (options.max_seconds or options.steps):
        parser.error("--max-seconds or --steps: one of the two says when to end")
    return options


def main():
    """Train as the command line says."""
    options = parse()
    if options.device == "cpu":
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    log = Log(options.out / "log.jsonl")
    crops, tasks, teacher = prepare(
        options.packed,
        device,
        log,
        options.limit,
        hop=options.teacher_hop,
        meetings=options.meetings,
        cache=options.cache,
    )
    baselines(tasks, teacher, crops, log, options.cache)
    lesson = Lesson(Config(**options.config), crops, device, log, options.out)
    if lesson.config.front == "mel":
        students.set_convolution(lesson.student.encoder, fastest_convolution(lesson, log))
    if options.resume:
        lesson.resume()
    tasks = tasks if options.checks else None
    lesson.run(options.max_seconds, options.steps, tasks, options.checks, options.save_every)
    lesson.save("last")
    lesson.save_checkpoint()


if __name__ == "__main__":
    main()
