"""Use fine-tuned models: predict the speakers of a table's segments, or extract features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.counts import agree, counted
from ..common.errors import InputError
from ..common.log import with_progress
from ..extract.audio import channels_unread, segments_of
from ..manifests.predictions import unnamed_lines, with_unknown
from ..manifests.splits.tasks import rows_of_split
from .config import FinetuneConfig
from .training.session_result import read_result

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from ..extract.options import ExtractSummary
    from .model.module import SpeakerModule


Log = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class PredictionResult:
    """Result of `predict`.

    Attributes
    ----------
    table : DataFrame
        A predictions table with `scores`, of one model name.
    left_out : {session: why}
        Sessions without any prediction.
    rejected : {segment id: why}
        Unusable segments.
    notes : lines
        Reasons to doubt the predictions, and how many segments have nobody named.
    """

    table: pd.DataFrame
    left_out: dict[str, str]
    rejected: dict[str, str]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return how many segments are named, in one line."""
        named = counted(len(self.table), "segment")
        return f"<PredictionResult {named}, {self.table['model'].iloc[0]}>"


def predict(  # noqa: PLR0913  (the options of the command)
    checkpoint: str | Path,
    table: pd.DataFrame,
    *,
    split: str = "test",
    unknown_below: float | None = None,
    audio_root: str = ".",
    encoder: str | None = None,
    device: str = "auto",
    log: Log = lambda line: None,
    **changes: Any,
) -> PredictionResult:
    """Name the speaker of each segment of a split.

    Segments outside the split train that the model was trained on, by their id or by shared audio,
    are counted in the model's name: scores on them say little about others.

    Parameters
    ----------
    checkpoint
        A checkpoint, or the folder of several sessions: each session is named by its own model.
    unknown_below
        Probability, 0..1, below which the most probable speaker is not named; `best` keeps the
        name.
    encoder
        Folder or hub id of the encoder, if it is no longer where the checkpoint says.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
    log
        Receives a line if a GPU was requested but there is none.
    changes
        `batch_seconds`, `channel`, `resample` of `FinetuneConfig`, which override those of the
        training unless None.

    Raises
    ------
    InputError
        A checkpoint or its encoder cannot be loaded, or nothing is left.
    """
    rows = rows_of_split(table, split)
    options = {name: value for name, value in changes.items() if value is not None}
    options = {"batch_seconds": 40.0, **options, "audio_root": audio_root}
    computing = _device(device, log)
    tables: list[pd.DataFrame] = []
    rejected: dict[str, str] = {}
    scored = Doubts()
    sessions: set[str] = set()
    for path in with_progress([*_checkpoints(checkpoint)], "models"):
        module = _loaded(path, encoder)
        ours = rows if module.settings.within == "corpus" else _of(rows, module.subject.task)
        if not len(ours):
            continue
        config = replace(module.settings, **options)
        predicted, unfit = _predict_session(
            module.to(computing), ours.reset_index(drop=True), config
        )
        sessions |= set(ours["session"])
        rejected |= unfit
        if predicted is not None:
            tables.append(predicted)
            scored.add(module, ours[ours["segment_id"].isin(predicted["segment_id"])], audio_root)
    _check_any_predicted(checkpoint, rows, rejected, predicted=len(tables))
    import pandas as pd

    table = pd.concat(tables, ignore_index=True)
    if scored.learnt:
        table["model"] += f", {counted(len(scored.learnt), 'training segment')}"
    table = table if unknown_below is None else with_unknown(table, unknown_below)
    unread = channels_unread(segments_of(rows, audio_root), config.channel)
    notes = [unread] if unread else []
    notes += [*scored.notes(len(table)), *unnamed_lines(table, unknown_below)]
    return PredictionResult(table, _left_out(rows, sessions, rejected), rejected, tuple(notes))


@dataclass
class Doubts:
    """Reasons to doubt a score: segments that were trained on, and unknown speakers."""

    by_id: set[str] = field(default_factory=set)  # trained on, though outside the split train
    by_audio: set[str] = field(default_factory=set)  # share audio with training segments
    strangers: dict[str, str] = field(default_factory=dict)  # segment id -> speaker

    @property
    def learnt(self) -> set[str]:
        """Ids of the segments that the model was trained on."""
        return self.by_id | self.by_audio

    def add(self, module: SpeakerModule, rows: pd.DataFrame, audio_root: str) -> None:
        """Examine the segments that a model predicted."""
        from .training.provenance import sharing_audio

        others = rows[rows["split"] != "train"] if "split" in rows else rows
        by_id = set(others["segment_id"]) & module.subject.trained
        shared = set(sharing_audio(others, module.subject.audio, audio_root))
        self.by_id |= by_id
        self.by_audio |= shared - by_id
        stranger = ~rows["speaker"].isin(module.subject.labels)
        self.strangers |= dict(
            rows.loc[stranger, ["segment_id", "speaker"]].itertuples(index=False, name=None)
        )

    def notes(self, segments: int) -> tuple[str, ...]:
        """Return a line for each kind of doubt; `segments` is the number of predictions."""
        notes = []
        if self.learnt:
            notes.append(
                f"{counted(len(self.learnt), 'segment', 'is', of=segments)} not of the split "
                f"train and {agree(len(self.learnt), 'was', 'were')} trained on "
                f"({len(self.by_id)} by segment_id, {len(self.by_audio)} by audio that they "
                f"share), first {min(self.learnt)!r}; the model's name says so"
            )
        if self.strangers:
            first = next(iter(self.strangers.values()))
            notes.append(
                f"{counted(len(self.strangers), 'segment', 'has', of=segments)} speakers that the "
                f"model does not know, first {first!r}; whatever they are named counts as wrong"
            )
        return tuple(notes)


def _device(name: str, log: Log) -> torch.device:
    """Return the device to compute on; ``gpu``, a former name, falls back to the CPU."""
    import torch

    from ..extract.encoder.device import choose_device

    if name == "gpu":
        name = "auto"
        if not torch.cuda.is_available():
            log("--device: 'gpu' is requested but there is none; predicting on the CPU")
    return choose_device(name)


def _left_out(
    rows: pd.DataFrame, sessions: set[str], rejected: Mapping[str, str]
) -> dict[str, str]:
    """Return the sessions without any prediction, and why."""
    left_out = {}
    for name, part in rows.groupby("session"):
        if name not in sessions:
            left_out[str(name)] = f"{counted(len(part), 'segment')}, no model of this session"
        elif part["segment_id"].isin(rejected).all():
            left_out[str(name)] = f"{counted(len(part), 'segment')}, all rejected"
    return left_out


def _check_any_predicted(
    checkpoint: str | Path, rows: pd.DataFrame, rejected: Mapping[str, str], *, predicted: int
) -> None:
    """Raise `InputError` if nothing was predicted."""
    if predicted:
        return
    if rejected:
        name, why = next(iter(rejected.items()))
        raise InputError(
            f"table: {counted(len(rejected), 'segment', 'is', of=len(rows))} rejected and the "
            f"others of no session with a model, first {name!r} ({why}), expected at least 1 that "
            "can be used; look at --audio-root"
        )
    raise InputError(
        f"table: {counted(0, 'segment', 'is', of=len(rows))} of a session that {checkpoint} "
        "knows, expected at least 1, since a model of one session names only that session; name "
        "another table, or for new meetings train on the table of the known ones by spk-finetune "
        "fit --within corpus and name that --log-dir"
    )


def embed(
    checkpoint: str | Path,
    table: pd.DataFrame,
    store: str | Path,
    options: Mapping[str, Any],
    *,
    encoder: str | None = None,
    **hooks: Any,
) -> ExtractSummary:
    """Extract a table's features with a fine-tuned encoder to a store, as `extract` does.

    Parameters
    ----------
    checkpoint
        A single checkpoint, since a store is of one encoder.
    options
        Fields of `spk.extract.options.ExtractOptions`, by name. The encoder is the checkpoint's,
        and so are `channel` and `resample` unless given.
    hooks
        `stop` and `log` of `extract`.
    """
    from ..extract.encoder.device import choose_device, choose_dtype
    from ..extract.encoder.encoder import Encoder
    from ..extract.options import ExtractOptions
    from ..extract.run import run_extraction

    paths = list(_checkpoints(checkpoint))
    if len(paths) > 1:
        raise InputError(
            f"{checkpoint}: holds {counted(len(paths), 'model')}, first {paths[0]}, expected one "
            "checkpoint, since a store is of one encoder; name one"
        )
    module = _loaded(paths[0], encoder)
    chosen = {name: value for name, value in options.items() if value is not None}
    trained = {name: getattr(module.settings, name) for name in ("channel", "resample")}
    extract_options = ExtractOptions(**{**trained, **chosen})
    device = choose_device(extract_options.device)
    tuned = Encoder(
        tuned_parts(module), device=device, dtype=choose_dtype(extract_options.dtype, device)
    )
    return run_extraction(table, store, extract_options, encoder=tuned, **hooks)


def tuned_parts(module: SpeakerModule) -> Any:
    """Return a model's encoder with its own name and hash.

    The hash covers the original encoder's hash and the trained tensors with their names.
    """
    from ..extract.encoder.loading import LoadedEncoder

    trunk, provenance = module.trunk, dict(module.subject.encoder)
    digest = hashlib.sha256(provenance["weights_sha256"].encode())
    for name, tensor in sorted(trunk.state_dict().items()):
        if f"trunk.{name}" in module.trained_names():
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    provenance["weights_sha256"] = digest.hexdigest()
    provenance["encoder"] = f"{provenance['encoder']}, fine-tuned on {module.subject.task}"
    return LoadedEncoder(trunk.model, trunk.front, provenance, trunk.rate)


def _loaded(path: Path, encoder: str | None) -> SpeakerModule:
    from .model.checkpoint import load_finetuned

    return load_finetuned(path, encoder=encoder)


def _checkpoints(path: str | Path) -> Iterator[Path]:
    """Yield a checkpoint, or those of a run's finished sessions."""
    path = Path(path)
    if not path.is_dir():
        yield path
        return
    folders = sorted(path.glob("version_*")) or [path]
    finished = [result for result in map(read_result, folders) if result and result.checkpoint]
    if not finished:
        raise InputError(
            f"{path}: holds no finished session, expected a folder of spk-finetune fit; run that "
            "first, or name a .ckpt file"
        )
    for folder, result in zip(folders, map(read_result, folders), strict=True):
        if result and result.checkpoint:
            yield _inside(folder, result.checkpoint)


def _inside(folder: Path, checkpoint: str) -> Path:
    """Return the checkpoint that a result names, which must be inside the log folder."""
    if ".." in Path(checkpoint).parts:
        raise InputError(
            f"{folder / 'result.json'}: checkpoint is {checkpoint!r}, expected a file below "
            f"{folder.parent}; name the .ckpt file itself"
        )
    return folder.parent / checkpoint


def _of(rows: pd.DataFrame, session: str) -> pd.DataFrame:
    return rows[rows["session"] == session]


def _predict_session(
    module: SpeakerModule, rows: pd.DataFrame, config: FinetuneConfig
) -> tuple[pd.DataFrame | None, dict[str, str]]:
    """Predict a session's usable segments, if any; return {segment id: why not} for the others."""
    import numpy as np

    from .data.dataset import SegmentDataset, encoder_read_options, load_samples
    from .model.checkpoint import model_name, predictions_table, score_segments

    read_options = encoder_read_options(module.trunk, config)
    segments = segments_of(rows, config.audio_root)
    samples, rejections = load_samples(segments, read_options)
    rejected = {name: f"{why.code}: {why.message}" for name, why in rejections.items()}
    good = [segment for segment in segments if segment.segment_id not in rejected]
    if not good:
        return None, rejected
    codes = np.full(len(good), -1)
    scores = score_segments(
        module, SegmentDataset(good, codes, read_options, samples, config), config
    )
    usable = rows[~rows["segment_id"].isin(rejected)]
    name = model_name(module.subject, config)
    return predictions_table(
        usable, scores, module.subject.labels, module.temperature, name
    ), rejected
