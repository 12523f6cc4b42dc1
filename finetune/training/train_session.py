"""Train a single task, from its rows to its result.

Its folder ``version_X`` has ``task.json`` (its provenance), ``metrics.csv`` and TensorBoard's
events, the checkpoints, and at the end ``predictions.csv`` and ``result.json``; the latter is
written last and marks the task as finished. The epoch is chosen on validation; test is scored once,
from that epoch's checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ...common.errors import InputError, explain_write_errors
from ...common.log import is_quiet
from ...extract.encoder.device import choose_dtype, out_of_memory
from ...extract.encoder.loading import LoadedEncoder
from ...manifests.splits.tasks import Task, rows_sha256
from ...manifests.table import write_predictions
from ..config import FinetuneConfig
from ..data.dataset import (
    SegmentDataset,
    data_sets,
    encoder_read_options,
    make_loader,
    why_untrainable,
)
from ..model.checkpoint import (
    load_weights,
    model_name,
    predictions_table,
    read_checkpoint,
    score_segments,
)
from ..model.frozen_cache import FrozenLayerCache, check_cacheable
from ..model.module import ModelIdentity, SpeakerModule
from .callbacks import AtomicCheckpointIO, History, Interrupted, callbacks, checkpoints
from .provenance import (
    Origin,
    describe,
    fingerprint,
    load_encoder,
    read_origin,
    sharing_audio,
    stamp,
    training_audio,
)
from .resume import checkpoint_to_resume
from .session_result import (
    PREFIX,
    SessionResult,
    checkpoint_folder,
    checkpoint_path,
    keeps_last,
    stem_in,
    write_result,
)

DIVERGED = (
    "scores are not finite, so the training diverged: a lower --learning-rate, a lower "
    "--gradient-clip or --dtype float32, in another --log-dir"
)
# Layers that unfreeze later, and states that are not read, have parameters without a gradient.
DISTRIBUTED = "ddp_find_unused_parameters_true"


@dataclass(frozen=True, eq=False)
class TrainingContext:
    """What all tasks of a run share.

    Attributes
    ----------
    split : str
        How the table was split; predictions are marked if it is leaky.
    device : str
        ``cpu`` or ``cuda:1``.
    ranks : int
        Number of processes that train one model together, each on its own device.
    on_ray : bool
        Whether Ray Train has started those processes; else Lightning starts them.
    stop : function
        Called between batches; true ends the run.
    """

    table: pd.DataFrame
    config: FinetuneConfig
    split: str = "unknown"
    device: str = "cpu"
    ranks: int = 1
    on_ray: bool = False
    stop: Callable[[], bool] = lambda: False


def train(task: Task, folder: Path, run: TrainingContext) -> SessionResult:
    """Train one task in its folder, or resume where it stopped.

    Raises
    ------
    InputError
        The table, the encoder or a setting is unsuitable, or memory ran out.
    Interrupted
        `run.stop` returned true; the last epoch is kept.
    """
    config = run.config
    parts = load_encoder(config)
    sets, rejected = data_sets(task, run.table, encoder_read_options(parts, config), config)
    origin = read_origin(folder) or describe(task, run.table, config, parts.provenance)
    ended = partial(SessionResult, task.name, rejected=rejected, made_from=fingerprint(origin))
    reason = why_untrainable(task, sets)
    if reason:
        return _finish(ended("skipped", reason), folder, config)
    audio = _training_audio(sets["train"], run.table, origin)
    module = _module(task, parts, sets["train"], folder, run, audio)
    history = _fit(module, sets, folder, run, rate=parts.rate)
    if history is None:  # one of several processes on one model: only the first continues
        return SessionResult(task.name, "helped")
    best = read_checkpoint(checkpoint_path(folder, task.name, "best", config))
    load_weights(module, best)
    scores = _scores(module, sets, run, rate=parts.rate)
    if not all(np.isfinite(values).all() for values in scores.values()):
        return _finish(ended("failed", DIVERGED), folder, config)
    scored = _predictions(module, sets, scores, run)
    write_predictions(scored, folder / "predictions.csv")
    result = ended(
        "done",
        speakers=len(task.labels),
        epochs=len(history.rows),
        best_epoch=int(best["epoch"]),
        seconds=round(sum(row["seconds"] for row in history.rows), 1),
        checkpoint=_shown(checkpoint_path(folder, task.name, "best", config), folder.parent),
        test_unknown=int((sets["test"].codes < 0).sum()),
        test_learnt=_learnt(scored, run, audio),
        **_accuracies(scored),
    )
    return _finish(result, folder, config)


def _finish(result: SessionResult, folder: Path, config: FinetuneConfig) -> SessionResult:
    """Write a result and return it; remove files that only an unfinished session needs."""
    write_result(folder, result)
    if not keeps_last(result, config):
        checkpoint_path(folder, result.session, "last", config).unlink(missing_ok=True)
    shutil.rmtree(folder / PREFIX, ignore_errors=True)
    return result


def _shown(path: Path, root: Path) -> str:
    """Return a path relative to the log folder if possible, so that the folder may move."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _training_audio(
    train_set: SegmentDataset, table: pd.DataFrame, origin: Origin
) -> list[dict[str, Any]]:
    """Return the model's training audio, per recording."""
    used = table["segment_id"].isin([segment.segment_id for segment in train_set.segments])
    return training_audio(table[used], origin.recordings or {})


def _learnt(scored: pd.DataFrame, run: TrainingContext, audio: list[dict[str, Any]]) -> int:
    """Count the scored test segments that share audio with training segments."""
    test = scored["segment_id"][scored["split"] == "test"]
    rows = run.table[run.table["segment_id"].isin(test)]
    return len(sharing_audio(rows, audio, run.config.audio_root))


def _module(
    task: Task,
    parts: LoadedEncoder,
    train_set: SegmentDataset,
    folder: Path,
    run: TrainingContext,
    audio: list[dict[str, Any]],
) -> SpeakerModule:
    config = run.config
    subject = ModelIdentity(
        task.name,
        task.labels,
        parts.provenance,
        run.split,
        rows=rows_sha256(task, run.table),
        trained=frozenset(segment.segment_id for segment in train_set.segments),
        audio=tuple(audio),
    )
    codes = torch.from_numpy(train_set.codes)
    if not config.cache_prefix:
        return SpeakerModule(parts, subject, config, codes=codes)
    cache = FrozenLayerCache(folder / PREFIX, _sign(subject, train_set, run))
    module = SpeakerModule(parts, subject, config, codes=codes, cache=cache)
    check_cacheable(config, module.trunk.wanted, module.trunk.cut, module.trunk.least)
    return module


def _sign(subject: ModelIdentity, train_set: SegmentDataset, run: TrainingContext) -> str:
    """Return a fingerprint of everything that the frozen layers' output per batch depends on."""
    config, device = run.config, torch.device(run.device)
    names = ("batch_seconds", "batch_size", "channel", "resample", "states", "unfreeze")
    settings = {name: getattr(config, name) for name in (*names, "freeze_encoder_layers")}
    computing = [device.type, str(choose_dtype(config.dtype, device)), run.config.max_epochs]
    segments = [asdict(segment) for segment in train_set.segments]
    files = [(path, stamp(Path(path))) for path in sorted({s.path for s in train_set.segments})]
    content = [settings, computing, dict(subject.encoder), segments, files]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _fit(
    module: SpeakerModule,
    sets: dict[str, SegmentDataset],
    folder: Path,
    run: TrainingContext,
    *,
    rate: int,
) -> History | None:
    """Train to the end from the last saved epoch; None in all but the first of several processes.

    Raises
    ------
    InputError
        Memory ran out; the message suggests a --batch-seconds that fits.
    """
    config, name = run.config, module.subject.task
    history = History(folder / "metrics.csv")
    place = checkpoint_folder(folder, config)
    saving = checkpoints(place, stem_in(place, name), config)
    last = checkpoint_to_resume(folder, module.subject, config)
    begun = 0 if last is None else int(read_checkpoint(last)["epoch"]) + 1
    with _quiet():
        trainer = _trainer(folder, run, callbacks(saving, history, config, run.stop))
        part = (trainer.global_rank, trainer.world_size)
        loaders = (
            make_loader(sets["train"].training(), config, shuffled=True, epoch=begun, part=part),
            make_loader(sets["valid"], config),
        )
        try:
            # TensorBoard raises a plain OSError when the disk is full.
            with explain_write_errors(folder), _enough_memory(module, rate):
                trainer.fit(module, *loaders, ckpt_path=last, weights_only=True)
        except SIGTERMException:  # Lightning handles that signal too
            raise Interrupted from None
    return history if trainer.is_global_zero else None


def _trainer(
    folder: Path, run: TrainingContext, added: list[lightning.Callback]
) -> lightning.Trainer:
    config, device = run.config, torch.device(run.device)
    bfloat16 = choose_dtype(config.dtype, device) == torch.bfloat16
    return lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        precision="bf16-mixed" if bfloat16 else "32-true",
        max_epochs=config.max_epochs,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.gradient_clip or None,
        log_every_n_steps=1,
        logger=TensorBoardLogger(folder.parent, name="", version=folder.name),
        callbacks=added,
        enable_progress_bar=sys.stderr.isatty() and not is_quiet(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # `BatchSampler` gives each process its part
        **_processes(run),
    )


def _processes(run: TrainingContext) -> dict[str, Any]:
    """Return the trainer's options that say in which processes a model is trained."""
    plugins: list[Any] = [AtomicCheckpointIO()]
    if run.on_ray:
        from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

        strategy = RayDDPStrategy(find_unused_parameters=True)  # as `DISTRIBUTED`
        plugins.append(RayLightningEnvironment())
        return {"devices": "auto", "strategy": strategy, "plugins": plugins}
    if run.ranks > 1:
        return {"devices": run.ranks, "strategy": DISTRIBUTED, "plugins": plugins}
    device = torch.device(run.device)
    single = [device.index or 0] if device.type == "cuda" else 1
    return {"devices": single, "plugins": plugins}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's advice on intended settings; its progress bar stays."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    hook = threading.excepthook

    def heard(problem: threading.ExceptHookArgs) -> None:
        # TensorBoard's thread; if it cannot write, training cannot either, and reports it
        if not issubclass(problem.exc_type, OSError):
            hook(problem)

    threading.excepthook = heard
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            yield
    finally:
        threading.excepthook = hook
        log.setLevel(level)


@contextmanager
def _enough_memory(module: SpeakerModule, rate: int) -> Iterator[None]:
    """Turn out-of-memory errors into advice: a batch size that has fitted, or a smaller one."""
    try:
        yield
    except Exception as problem:
        if not out_of_memory(problem):
            raise
        limit, fitted = module.settings.batch_seconds, module.largest / rate
        seconds, why = 0.75 * limit, "three quarters of it"
        if 0 < fitted < seconds:
            seconds, why = fitted, "the largest that has fitted"
        raise InputError(
            f"--batch-seconds: a batch of up to {limit:g} s, or one longer segment, is too large "
            f"for the device's memory, expected it to fit; pass --batch-seconds {seconds:.1f} "
            f"({why}), --crop-seconds or --gradient-checkpointing, and another --log-dir where "
            "this one holds finished epochs"
        ) from None


def _scores(
    module: SpeakerModule, sets: dict[str, SegmentDataset], run: TrainingContext, *, rate: int
) -> dict[str, np.ndarray]:
    """Return the scores (n, labels) for validation and test."""
    module.to(run.device)
    with _enough_memory(module, rate):
        return {part: score_segments(module, sets[part], run.config) for part in ("valid", "test")}


def _predictions(
    module: SpeakerModule,
    sets: dict[str, SegmentDataset],
    scores: dict[str, np.ndarray],
    run: TrainingContext,
) -> pd.DataFrame:
    """Return the predictions for validation and test, each in the table's order."""
    table = run.table.set_index("segment_id", drop=False)
    name, labels = model_name(module.subject, run.config), module.subject.labels
    tables = []
    for split, values in scores.items():
        rows = table.loc[[segment.segment_id for segment in sets[split].segments]]
        tables.append(predictions_table(rows, values, labels, module.temperature, name))
    return pd.concat(tables, ignore_index=True)


def _accuracies(scored: pd.DataFrame) -> dict[str, Any]:
    accuracies: dict[str, Any] = {}
    for split in ("valid", "test"):
        rows = scored[scored["split"] == split]
        accuracies[f"{split}_segments"] = len(rows)
        accuracies[f"{split}_accuracy"] = float((rows["speaker"] == rows["predicted"]).mean())
    return accuracies
