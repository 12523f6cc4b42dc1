"""Lightning callbacks: atomic checkpoints, graceful stopping, and a history that survives resuming.

`History` rewrites ``metrics.csv``, one row per epoch, after each epoch; Lightning's own CSV logger
starts over whenever a run resumes.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ...common.files import atomic_write
from ..config import MODES, FinetuneConfig
from ..model.module import MERIT


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically; a full disk raises `InputError`."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint atomically."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with content.getbuffer() as view:
            atomic_write(path, view)


class Interrupted(Exception):  # noqa: N818 (the user's request, not a failure)
    """Raised between two batches when the user asked to stop."""


class StopOnRequest(lightning.Callback):
    """Ends the run between two batches once `stop` returns true; keeps the last checkpoint."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop

    def on_train_batch_end(self, *_: Any) -> None:
        """Check whether to stop."""
        if self._stop():
            raise Interrupted


class StopIfPatienceUsedUp(lightning.Callback):
    """Keeps a run that was killed after stopping early from training another epoch."""

    def __init__(self, early: EarlyStopping) -> None:
        self._early = early

    def on_train_start(self, trainer: lightning.Trainer, _module: Any) -> None:
        """Stop if the patience is already used up."""
        if self._early.wait_count >= self._early.patience:
            trainer.should_stop = True


class History(lightning.Callback):
    """One row per epoch, kept in the checkpoint and written to `path`.

    Attributes
    ----------
    rows : list of {"epoch", "step", "lr", "seconds", and logged metrics}
        `seconds` is the wall time of the epoch; `lr` the learning rate of the head.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._begun = path, 0.0
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the epoch's timer."""
        self._begun = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, _module: Any) -> None:
        """Add the epoch's row and write the file."""
        metrics = sorted(trainer.callback_metrics.items())
        logged = {name: float(value) for name, value in metrics if name != MERIT}
        self.rows.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "lr": trainer.optimizers[0].param_groups[-1]["lr"],
                "seconds": time.perf_counter() - self._begun,
                **logged,
            }
        )
        if trainer.is_global_zero:
            atomic_write(self._path, _csv(self.rows))

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for the checkpoint."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint's rows."""
        self.rows = [dict(row) for row in state["rows"]]


def _csv(rows: list[dict[str, float]]) -> bytes:
    import pandas as pd

    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode()


def checkpoints(folder: Path, stem: str, config: FinetuneConfig) -> tuple[ModelCheckpoint, ...]:
    """Return the callbacks that save ``STEM-best.ckpt``, the top k, and ``STEM-last.ckpt``.

    The last one saves the last epoch with everything needed to resume. It comes after the others,
    so that it includes their state.
    """
    always: dict[str, Any] = {
        "dirpath": folder,
        "auto_insert_metric_name": False,
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    monitored: dict[str, Any] = {
        "monitor": _monitored(config),
        "mode": MODES[config.checkpoint_monitor],
        "save_weights_only": True,
    }
    best = _Best(filename=f"{stem}-best", save_top_k=1, **monitored, **always)
    last = ModelCheckpoint(filename=f"{stem}-last", **always)
    if config.checkpoint_save_top_k == 1:
        return best, last
    name, count = f"{stem}-{{epoch:03d}}", config.checkpoint_save_top_k
    return best, _MoreBest(filename=name, save_top_k=count, **monitored, **always), last


class _Best(ModelCheckpoint):
    """Saves the best epoch's checkpoint, and still finds it after the folder has moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from the last checkpoint, with paths moved to this folder."""
        state, folder = dict(state_dict), Path(str(self.dirpath))
        state["dirpath"] = self.dirpath
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[name] = str(folder / Path(state[name]).name) if state[name] else ""
        best = state["best_k_models"].items()
        state["best_k_models"] = {str(folder / Path(path).name): value for path, value in best}
        super().load_state_dict(state)


class _MoreBest(_Best):
    """Saves the top k; has its own key in the last checkpoint, besides `_Best`'s."""

    @property
    def state_key(self) -> str:
        return f"several {super().state_key}"


def _monitored(config: FinetuneConfig) -> str:
    return MERIT if config.checkpoint_monitor == "val_acc" else config.checkpoint_monitor


def callbacks(
    saving: tuple[ModelCheckpoint, ...],
    history: History,
    config: FinetuneConfig,
    stop: Callable[[], bool],
) -> list[lightning.Callback]:
    """Return the callbacks of a training run, with early stopping if `patience` is set."""
    added: list[lightning.Callback] = [StopOnRequest(stop), history]
    if config.patience is not None:
        early = EarlyStopping(
            _monitored(config),
            mode=MODES[config.checkpoint_monitor],
            patience=config.patience,
            check_on_train_epoch_end=True,
        )
        added += [early, StopIfPatienceUsedUp(early)]
    return [*added, *saving]
