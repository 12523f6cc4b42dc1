"""The transfer model as a Lightning module: encoder, weighted sum of states, pooling, head.

All randomness in an epoch is reseeded from the seed, the task and the epoch, and the learning rate
is a function of the epoch, so a resumed run equals an uninterrupted one. Checkpoints contain
everything that was ever trained, and identify the encoder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import nn

from ...classify.classifiers.calibration import find_temperature
from ...common.errors import InputError
from ...common.names import normal_names
from ...extract.encoder.device import carried
from ...extract.encoder.loading import LoadedEncoder
from ..config import FinetuneConfig
from ..data.dataset import Batch
from .encoder import FrozenOutput, PartlyFrozenEncoder
from .frozen_cache import FrozenLayerCache
from .heads import Pooling, SpeakerHead, class_weights, loss

MERIT = "val_merit"  # val_acc, ties broken by val_loss
IDENTITY = ("encoder", "revision", "weights_sha256", "encoder_config_sha256", "untrained")
SAME = ("weights_sha256", "encoder_config_sha256", "normalization")  # independent of location


@dataclass(frozen=True)
class ModelIdentity:
    """What identifies a model: the task's name, its labels, the encoder, how rows were split."""

    task: str
    labels: tuple[str, ...]
    encoder: Mapping[str, Any]
    split: str = "unknown"
    rows: str = ""  # fingerprint of the task's rows
    trained: frozenset[str] = frozenset()  # ids of the training segments
    audio: tuple[Mapping[str, Any], ...] = ()  # their recordings (`provenance.training_audio`)


class SpeakerModule(lightning.LightningModule):
    """Maps waveforms to one score per label.

    Parameters
    ----------
    parts : the encoder, whose model becomes part of this module
    codes : (n,) int64, optional
        Codes of the training segments, for class weights.
    """

    def __init__(
        self,
        parts: LoadedEncoder,
        subject: ModelIdentity,
        config: FinetuneConfig,
        *,
        codes: torch.Tensor | None = None,
        cache: FrozenLayerCache | None = None,
    ) -> None:
        super().__init__()
        self.strict_loading = False  # frozen tensors are not in the checkpoint
        self.subject, self.settings, self._cache = subject, config, cache
        torch.manual_seed(derive_seed(config.seed, subject.task, "weights"))
        self.trunk = PartlyFrozenEncoder(parts, config)
        self.mix = nn.Parameter(torch.zeros(len(self.trunk.wanted)))
        self.mix.requires_grad_(len(self.trunk.wanted) > 1)
        self.pooling = Pooling(config.pooling_method, int(parts.model.config.hidden_size))
        self.head = SpeakerHead(self.pooling.size, len(subject.labels), config)
        weights = None
        if config.class_weights == "balanced" and codes is not None:
            weights = class_weights(codes, len(subject.labels))
        self.weights: torch.Tensor | None
        self.register_buffer("weights", weights, persistent=False)
        self.temperature = 1.0
        self._checked: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.largest = 0  # samples of the largest batch trained on, including padding

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return scores (n, labels) float32 of a batch."""
        entered = self._entered(batch)
        states = self.trunk.run_trainable(entered)
        state = states[0]
        if len(states) > 1:
            shares = self.mix.softmax(0)
            state = sum(share * layer.float() for share, layer in zip(shares, states, strict=True))
        return self.head(self.pooling(state, entered.frames))

    def _entered(self, batch: Batch) -> FrozenOutput:
        cache = self._cache if self.training else None
        entered = cache.get(batch.ask, self.device) if cache else None
        if entered is None:
            padded, lengths = self.trunk.prepare(batch.waveforms, self.device)
            entered = self.trunk.run_frozen(padded, lengths)
            if cache:
                cache.put(batch.ask, entered)
        return entered

    def training_step(self, batch: Batch, _number: int) -> torch.Tensor:
        """Return the loss of a batch."""
        scores, codes = self(batch), carried(batch.codes, self.device)
        train_loss = loss(scores, codes, self.settings, self.weights)
        right = (scores.argmax(1) == codes).float().mean()
        self._log("train_loss", train_loss.detach(), len(codes))
        self._log("train_acc", right, len(codes))
        return train_loss

    def validation_step(self, batch: Batch, _number: int) -> None:
        """Log the loss and accuracy; a label that is not in train counts as wrong."""
        scores, codes = self(batch), carried(batch.codes, self.device)
        self._checked.append((scores, batch.codes))
        self._log("val_acc", (scores.argmax(1) == codes).float().mean(), len(codes))
        labelled = int((batch.codes >= 0).sum())
        if labelled:
            val_loss = nn.functional.cross_entropy(scores, codes, ignore_index=-1)
            self._log("val_loss", val_loss, labelled)

    def on_validation_epoch_end(self) -> None:
        """Fit the temperature to this epoch's scores, and log the epoch's selection score."""
        scores, codes = (torch.cat(parts) for parts in zip(*self._checked, strict=True))
        scores = scores.cpu()
        self._checked.clear()
        self.temperature = find_temperature(scores.double().numpy(), codes.numpy())
        self._log(MERIT, torch.tensor(selection_score(scores, codes), device=self.device), 1)

    def _log(self, name: str, value: torch.Tensor, count: int) -> None:
        # Every process validates on all segments, so that all choose the same epoch.
        shared = self.trainer.world_size > 1 and name.startswith("train")
        self.log(name, value, on_step=False, on_epoch=True, batch_size=count, sync_dist=shared)

    def transfer_batch_to_device(self, batch: Batch, _device: Any, _loader: int) -> Batch:
        """Leave a batch as it is: `forward` pads on the device."""
        return batch

    def on_train_start(self) -> None:
        """Start in training mode, whatever mode the model was in."""
        self.train()

    def on_train_epoch_start(self) -> None:
        """Make random draws, trainable layers and learning rates a function of the epoch."""
        epoch = self.current_epoch
        torch.manual_seed(
            derive_seed(self.settings.seed, self.subject.task, epoch, self.trainer.global_rank)
        )
        self.trunk.set_epoch(epoch)
        factor = self.settings.lr_gamma ** (epoch // self.settings.lr_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["first_lr"] * factor

    def on_train_batch_end(self, _outputs: Any, batch: Batch, _number: int) -> None:
        """Remember the largest batch that fitted."""
        self.largest = max(self.largest, batch.samples)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW over everything that is ever trained, one group per learning rate."""
        settings = self.settings
        rate = settings.learning_rate
        groups = [(rate * factor, parameters) for factor, parameters in self.trunk.groups()]
        own = [*self.pooling.parameters(), *self.head.parameters(), self.mix]
        groups.append((settings.head_learning_rate or rate, own))
        return torch.optim.AdamW(
            [{"params": parameters, "lr": lr, "first_lr": lr} for lr, parameters in groups],
            weight_decay=settings.weight_decay,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drop tensors that never train, and add the model's description."""
        if not self.settings.keep_encoder:
            trained = self.trained_names()
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: state[name] for name in state if name in trained}
        checkpoint["spk"] = {
            "task": self.subject.task,
            "labels": list(self.subject.labels),
            "split": self.subject.split,
            "rows": self.subject.rows,
            "trained": sorted(self.subject.trained),
            "audio": [dict(recording) for recording in self.subject.audio],
            "encoder": {
                name: value
                for name, value in self.subject.encoder.items()
                if name in (*IDENTITY, *SAME)
            },
            "settings": asdict(self.settings),
            "temperature": self.temperature,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is of this encoder and task; load its temperature."""
        check_same_model(checkpoint.get("spk"), self.subject)
        self.temperature = float(checkpoint["spk"]["temperature"])

    def trained_names(self) -> set[str]:
        """Return the names of the encoder's tensors that are ever trained, and of the head's."""
        own = {name for name in self.state_dict() if not name.startswith("trunk.")}
        return own | {f"trunk.{name}" for name in self.trunk.trained_names()}


def check_same_model(
    description: Mapping[str, Any] | None, subject: ModelIdentity, option: str = "--encoder"
) -> None:
    """Raise `InputError` if a checkpoint's description is not of this encoder and task.

    `option` is the command-line option that names the encoder.
    """
    if not description:
        raise InputError(
            "checkpoint: does not say what it was trained on, expected one of spk-finetune; "
            "name another"
        )
    old = description["encoder"]
    for name in (SAME[0], *(name for name in SAME[1:] if name in old and name in subject.encoder)):
        if old.get(name) != subject.encoder[name]:
            raise InputError(
                f"checkpoint of {description['task']}: {name} is {subject.encoder[name]!r}, "
                f"expected {old.get(name)!r}, that of the encoder {old.get('encoder')!r} on which "
                f"it was trained; name its folder with {option}"
            )
    (task,), labels = (
        normal_names([description["task"]]),
        tuple(normal_names(description["labels"])),
    )
    pairs = {"task": (task, subject.task), "labels": (labels, subject.labels)}
    for name, (before, now) in pairs.items():
        if before != now:
            raise InputError(
                f"checkpoint of {description['task']}: {name} is {before!r}, expected {now!r}; use "
                "the table that it was trained with"
            )


def selection_score(scores: torch.Tensor, codes: torch.Tensor) -> float:
    """Return the accuracy of scores (n, labels), with ties broken by the log-loss.

    The log-loss adds less than half a segment. On small validation sets many epochs have the same
    accuracy, and the first of them is rarely the best.
    """
    right = float((scores.argmax(1) == codes).double().mean())
    labelled = codes >= 0
    if not labelled.any():
        return right
    cost = float(nn.functional.cross_entropy(scores[labelled].double(), codes[labelled]))
    return right + 0.5 * float(np.exp(-cost)) / len(codes)


def derive_seed(*parts: object) -> int:
    """Derive a seed below 2**63 from the parts' text; the same on every machine."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
