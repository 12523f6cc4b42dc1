"""The settings of a fine-tuning run: a dataclass, its YAML file, and the presets.

Every field is a key of the file and an option of ``spk-finetune fit``, under the same name and
default. The keys of the reference project's config.yaml keep their names and meaning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from ..common.engine.options import check_engine, engine_field, ray_address_field
from ..common.options import (
    AUDIO_ROOT,
    CORRECT,
    joined,
    number_list,
    number_range,
    option_error,
    option_field,
    parse_channel,
    seed_field,
    validate_fields,
    yes_or_no,
)
from ..extract.options import DEFAULT_ENCODER
from .config_file import check_key, read_settings, write_settings
from .config_forms import all_form, check_layer_choice, shard_form, unfreeze_steps

MODES = {"val_acc": "max", "val_loss": "min"}  # monitored value -> which is better


def check_combinations(fit: Mapping[str, Any], where: Mapping[str, str]) -> None:
    """Raise `InputError` if settings contradict each other, though each is in range."""
    for name, expected, repair in _contradictions(fit):
        raise option_error(name, fit[name], expected, repair=repair, where=where)


def _contradictions(fit: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (setting, what is expected of it, the repair)."""
    if fit["checkpoint_save_top_k"] == 0:
        yield "checkpoint_save_top_k", "a whole number from 1, or -1 for all", CORRECT
    mode = MODES[fit["checkpoint_monitor"]]
    if fit["checkpoint_mode"] not in (None, mode):
        yield "checkpoint_mode", f"{mode} for {fit['checkpoint_monitor']}", CORRECT
    yield from _never_open(fit)
    if fit["engine"] == "ray" and fit["within"] == "session" and fit["devices"] != 1:
        yield "devices", "none beside engine ray, which uses all there are", "leave it out"
    for name, chance in (("noise_dir", "noise_prob"), ("reverb_dir", "reverb_prob")):
        if fit[name] is not None and not fit[chance]:
            expected = f"none beside {chance} 0, with which nothing is taken from it"
            yield name, expected, f"leave it out, or set {chance}"


def _never_open(fit: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield settings for parts that they ask to train but that never unfreeze."""
    frozen, last = fit["freeze_encoder_layers"], fit["max_epochs"] - 1
    if not fit["freeze_feature_extractor"] and frozen != 0:
        expected = (
            f"true beside freeze_encoder_layers {frozen}, since what lies below frozen layers "
            "would train through them"
        )
        yield "freeze_feature_extractor", expected, "set freeze_encoder_layers to 0"
    steps = unfreeze_steps(fit["unfreeze"])
    if steps and frozen != "all" and steps[0][1] >= frozen:
        yield "unfreeze", f"fewer layers than freeze_encoder_layers, {frozen}", CORRECT
    if steps and steps[-1][0] > last:
        expected = f"epochs up to {last}, the last (from 0) of max_epochs {last + 1}"
        yield "unfreeze", expected, "leave out the later steps"


POOLINGS = ("mean", "max", "mean+std", "mean+std+max", "attentive")
SHARE: dict[str, Any] = {"least": 0.0, "most": 1.0}
DECIBEL: dict[str, Any] = {
    "parse": number_range(-60, 60),
    "expected": "two numbers from -60 to 60, the lower first",
}
_task = partial(option_field, group="Task")
_batches = partial(option_field, group="Batches")
_audio = partial(option_field, group="Audio")
_encoder = partial(option_field, group="Encoder")
_head = partial(option_field, group="Head")
_optimiser = partial(option_field, group="Optimiser")
_augmentation = partial(option_field, group="Augmentation, in training only")
_outputs = partial(option_field, group="Outputs")
_resuming = partial(option_field, group="Resuming")
_hardware = partial(option_field, group="Hardware")
# Keys of the reference's file that have no effect here; they are accepted and ignored.
WITHOUT_EFFECT = ("log_every_n_steps",)


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of a run. Each is checked, and settings that contradict each other are refused."""

    # task
    within: str = _task(
        "session", "One model per session, or one for all (corpus).", choices=("session", "corpus")
    )
    seed: int = seed_field("Seed of everything random.", group="Task")
    max_epochs: int = _task(40, "Most epochs.", least=1)
    patience: int | None = _task(
        3, "Epochs without a better monitored value before stopping; none: never.", least=1
    )

    # batches
    batch_size: int | None = _batches(None, "Most segments in a batch.", least=1)
    batch_seconds: float = _batches(40.0, "Most audio in a padded batch.", unit="s", over=0)
    accumulate: int = _batches(1, "Batches per optimiser step.", least=1)
    crop_seconds: float | None = _batches(
        None, "Length of random crops in training.", unit="s", over=0
    )
    workers: int = _batches(
        0,
        "Processes that read and augment ahead; 0: none.",
        least=0,
        result=False,
        aliases=("num_workers",),
    )

    # audio
    csv_path: str | None = _audio(None, "The table, if TABLE is not given.", result=False)
    audio_root: str = _audio(".", AUDIO_ROOT, result=False)
    sample_rate: int | None = _audio(None, "The encoder's rate in Hz.", least=1, hidden=True)
    channel: str = _audio(
        "0",
        "Index from 0, or mean (equal average).",
        parse=parse_channel,
        native=joined,
        expected="an index from 0 or 'mean'",
    )
    resample: bool = _audio(False, "Accept recordings of another sample rate.")

    # encoder
    encoder: str = _encoder(
        DEFAULT_ENCODER,
        "Hub id, local folder, small (ships with spk), or untrained (tiny, random weights).",
        aliases=("pretrained_model",),
    )
    revision: str | None = _encoder(None, "Branch, tag or commit of a hub id.")
    normalize: str | None = _encoder(
        None,
        "Whether waveforms are normalised; none: as the encoder's files say.",
        choices=("yes", "no"),
        native=yes_or_no,
    )
    freeze_feature_extractor: bool = _encoder(True, "Do not train the convolutions.")
    freeze_encoder_layers: int | str = _encoder(
        8,
        "Lowest layers not trained, from 0, or all.",
        parse=all_form,
        least=0,
        expected="a whole number from 0, or all",
    )
    unfreeze: str = _encoder(
        "",
        "EPOCH:LAYERS,...: from that epoch (0, 1, ...) only that many layers stay frozen.",
        parse=unfreeze_steps,
        expected="EPOCH:LAYERS,... such as 3:4,6:0, epochs rising from 1, layers falling",
    )
    states: str = _encoder(
        "last",
        "Layer whose output is pooled: last, mix (learned), or a number.",
        parse=check_layer_choice,
        expected="last, mix or a state's number from 0",
    )
    mask_seconds: float = _encoder(
        0.0,
        "Longest time mask in training, of half a segment at most; 0: none.",
        unit="s",
        least=0,
    )
    mask_dims: float = _encoder(
        0.0, "Largest share of dimensions masked in training; 0: none.", **SHARE
    )

    # head
    pooling_method: str = _head("mean+std", "Statistics over a segment's frames.", choices=POOLINGS)
    head: str = _head(
        "mlp", "mlp: Linear, BatchNorm, ReLU, Dropout, Linear.", choices=("mlp", "linear")
    )
    head_size: int = _head(256, "Units of the mlp.", least=1)
    dropout: float = _head(0.3, "Share of the mlp's units dropped in training.", least=0, under=1)
    loss: str = _head(
        "cross-entropy", "aam: additive angular margin.", choices=("cross-entropy", "aam")
    )
    margin: float = _head(0.2, "Margin of aam, in radians.", least=0, under=1.5)
    scale: float = _head(30.0, "Scale of aam.", over=0)
    label_smoothing: float = _head(
        0.0, "Share of the target spread over all speakers.", least=0, under=1
    )
    class_weights: str = _head(
        "none", "balanced: rare speakers weigh more.", choices=("none", "balanced")
    )

    # optimiser
    learning_rate: float = _optimiser(3e-5, "Learning rate of the encoder (AdamW).", over=0, most=1)
    head_learning_rate: float | None = _optimiser(
        None, "Learning rate of the head; none: learning_rate.", over=0, most=1
    )
    layer_decay: float = _optimiser(
        1.0, "Factor of the learning rate per layer downwards.", over=0, most=1
    )
    weight_decay: float = _optimiser(0.01, "Weight decay of AdamW.", **SHARE)
    lr_step: int = _optimiser(3, "Epochs between two decreases of the learning rates.", least=1)
    lr_gamma: float = _optimiser(0.95, "Factor of each decrease.", over=0, most=1)
    gradient_clip: float = _optimiser(1.0, "Largest norm of the gradient; 0: no limit.", least=0)

    # augmentation, in training only
    speed_prob: float = _augmentation(0.0, "Probability of another speed.", **SHARE)
    speed_factors: str = _augmentation(
        "0.9,1.1",
        "Speeds to choose from.",
        parse=number_list(0.5, 2),
        expected="numbers from 0.5 to 2, such as 0.9,1.1",
    )
    noise_prob: float = _augmentation(0.0, "Probability of added noise.", **SHARE)
    noise_dir: str | None = _augmentation(None, "Folder of recorded noise.")
    noise_snr: str = _augmentation("5,20", "Lowest and highest signal to noise, in dB.", **DECIBEL)
    noise_color: str = _augmentation(
        "pink", "Colour of synthetic noise, without noise_dir.", choices=("white", "pink", "brown")
    )
    reverb_prob: float = _augmentation(0.0, "Probability of reverberation.", **SHARE)
    reverb_dir: str | None = _augmentation(None, "Folder of recorded room responses.")
    reverb_seconds: str = _augmentation(
        "0.2,0.8",
        "Shortest and longest RT60 of synthetic rooms, in s.",
        parse=number_range(0.01, 10),
        expected="two numbers from 0.01 to 10, the lower first",
    )
    gain_prob: float = _augmentation(0.0, "Probability of another level.", **SHARE)
    gain_db: str = _augmentation("-6,6", "Lowest and highest gain, in dB.", **DECIBEL)
    channel_prob: float = _augmentation(
        0.0, "Probability of a random channel instead of `channel`.", **SHARE
    )

    # outputs
    checkpoint_monitor: str = _outputs(
        "val_acc", "Value by which the best epoch is chosen.", choices=tuple(MODES)
    )
    checkpoint_mode: str | None = _outputs(
        None, "max for val_acc, min for val_loss.", choices=("max", "min"), hidden=True
    )
    checkpoint_save_top_k: int = _outputs(
        1,
        "Checkpoints kept; -1: all.",
        least=-1,
        result=False,
        expected="a whole number from 1, or -1 for all",
    )
    checkpoint_dir: str = _outputs(
        "checkpoints", "Folder inside each version's folder, or absolute.", result=False
    )
    log_dir: str = _outputs("lightning_logs", "Folder of the runs.", result=False)
    keep_encoder: bool = _outputs(False, "Save frozen tensors in checkpoints too.", result=False)
    keep_last: bool = _outputs(
        True, "Keep -last.ckpt at max_epochs, to add more epochs later.", result=False
    )

    # resuming
    resume_from_checkpoint: bool | str = _resuming(
        True,
        "Resume unfinished sessions; false: restart them; or a checkpoint's path.",
        result=False,
        expected="true, false or a path",
    )
    start_meeting: str = _resuming(
        "", "Leave out the sessions before this one.", result=False, name=True
    )
    sessions: tuple[str, ...] = _resuming((), "Only these sessions; none named: all.", result=False)
    shard: str = _resuming(
        "1/1",
        "Part i of n of the sessions.",
        parse=shard_form,
        result=False,
        expected="i/n with i from 1 to n, such as 1/4",
    )

    # hardware
    accelerator: str = _hardware(
        "auto",
        "Where to compute; cuda means gpu.",
        choices=("auto", "cpu", "gpu", "cuda"),
        also={"cuda": "gpu"},  # torch's name for the reference's accelerator
    )
    devices: int = _hardware(1, "Number of devices.", least=1, result=False)
    workers_per_device: int = _hardware(
        1, "Sessions trained at once on each device.", least=1, result=False
    )
    dtype: str = _hardware(
        "auto",
        "Number format to compute in; auto: bfloat16 on a GPU that has it.",
        choices=("auto", "float32", "bfloat16"),
        aliases=("precision",),
    )
    gradient_checkpointing: bool = _hardware(False, "Less memory, more time.")
    cache_prefix: bool = _hardware(False, "Cache the output of the frozen layers.", result=False)
    engine: str = engine_field("a session on each device", _hardware)
    ray_address: str | None = ray_address_field(_hardware)

    def __post_init__(self) -> None:
        for name, value in _settled(vars(self), {}).items():
            object.__setattr__(self, name, value)


def _settled(values: Mapping[str, Any], where: Mapping[str, str]) -> dict[str, Any]:
    fit = validate_fields(FinetuneConfig, values, where)
    check_engine(fit["engine"], fit["ray_address"])
    check_combinations(fit, where)
    return {**fit, "checkpoint_mode": MODES[fit["checkpoint_monitor"]]}


def read_config(
    source: str | Path | None, given: Mapping[str, Any] | None = None
) -> FinetuneConfig:
    """Return the settings of a file or preset, overridden by those given.

    Parameters
    ----------
    source
        A YAML file, or ``transfer`` or ``baseline``; None: the defaults.
    given
        Typed settings, by name; None means not typed.

    Raises
    ------
    InputError
        The file cannot be read, or a key or value is refused.
    """
    given, names = given or {}, [key.name for key in fields(FinetuneConfig)]
    from_file = {} if source is None else read_values(source)
    for name in given:
        check_key(name, names, "command line: option")
    where = {name: str(source) for name in from_file if name not in given}
    return FinetuneConfig(**_settled({**from_file, **given}, where))


def read_values(source: str | Path) -> dict[str, Any]:
    """Return the settings that a file or preset contains, as written, by their current names."""
    names = [key.name for key in fields(FinetuneConfig)]
    values = read_settings(source, [*names, *WITHOUT_EFFECT], former_names())
    return {name: value for name, value in values.items() if name in names}


def former_names() -> dict[str, str]:
    """Return {former name: current name} of renamed settings."""
    return {
        former: key.name for key in fields(FinetuneConfig) for former in key.metadata["aliases"]
    }


def by_names_of_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that an earlier version wrote, by their current names."""
    renamed = former_names()
    effective = {name: value for name, value in values.items() if name not in WITHOUT_EFFECT}
    return {renamed.get(name, name): value for name, value in effective.items()}


def write_config(config: FinetuneConfig, path: str | Path) -> None:
    """Write all settings as YAML, atomically; `read_config` reads equal ones back."""
    write_settings(vars(config), path)


def frozen_layers(config: FinetuneConfig, epoch: int, layer_count: int) -> int:
    """Return how many transformer layers, from the lowest, are frozen in an epoch (0-based).

    Raises
    ------
    InputError
        The encoder has fewer layers than `layer_count`.

    Examples
    --------
    >>> [frozen_layers(FinetuneConfig(unfreeze="3:4,6:0"), epoch, 24) for epoch in (2, 3, 7)]
    [8, 4, 0]
    """
    setting = config.freeze_encoder_layers
    frozen = layer_count if isinstance(setting, str) else setting
    if frozen > layer_count:
        most = f"at most {layer_count}, the encoder's layers, or all"
        repair = f"pass --freeze-encoder-layers {layer_count // 2 or 'all'}"
        raise option_error("freeze_encoder_layers", setting, most, repair=repair)
    for first, left in unfreeze_steps(config.unfreeze):
        if left >= layer_count:
            raise option_error(
                "unfreeze", config.unfreeze, f"fewer than {layer_count}, the encoder's layers"
            )
        if epoch >= first:
            frozen = left
    return frozen


def anew(folder: Path) -> str:
    """Return the repair for a damaged session folder."""
    return f"delete {folder} and run spk-finetune fit again to train that session anew"
