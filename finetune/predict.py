"""Tuned models at work: names for the segments of a table, and features for the common store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..manifests.table import InputError
from .config import Config
from .outcome import read_result
from .run import choose_devices

if TYPE_CHECKING:
    import pandas as pd

    from ..extract.options import Options, Summary
    from .module import SpeakerModule


def predict(
    checkpoint: str | Path,
    table: pd.DataFrame,
    *,
    split: str = "test",
    audio_root: str = ".",
    encoder: str | None = None,
    accelerator: str = "auto",
    batch_seconds: float = 40.0,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Name the speaker of each segment of a split.

    Parameters
    ----------
    checkpoint
        A checkpoint, or a fleet's folder: each session is named by its own model.
    encoder
        Folder or hub id of the encoder, where it is no longer where the checkpoint says.

    Returns
    -------
    predictions : DataFrame
        A predictions table with `scores`.
    left_out : {what: why}
        Sessions without a model, and segments that cannot be used.

    Raises
    ------
    InputError
        A checkpoint or its encoder cannot be had, or nothing is left.
    """
    import pandas as pd

    rows = _rows_of(table, split)
    tables: list[pd.DataFrame] = []
    left_out: dict[str, str] = {}
    known: set[str] = set()
    for path in _checkpoints(checkpoint):
        module = _loaded(path, encoder)
        ours = rows if module.settings.within == "corpus" else _of(rows, module.subject.task)
        known |= set(ours["session"])
        if not len(ours):
            continue
        config = replace(
            module.settings,
            audio_root=audio_root,
            accelerator=accelerator,
            devices=1,
            batch_seconds=batch_seconds,
        )
        named, rejected = _named(module, ours.reset_index(drop=True), config)
        left_out |= rejected
        tables.append(named)
    for name in sorted(set(rows["session"]) - known):
        left_out[name] = f"{len(_of(rows, name))} segments, no model of this session"
    if not tables:
        raise InputError(
            f"table: 0 of {len(rows)} segments are of a session that {checkpoint} knows, expected "
            "at least 1; name another checkpoint or table"
        )
    return pd.concat(tables, ignore_index=True), left_out


def embed(
    checkpoint: str | Path,
    table: pd.DataFrame,
    store: str | Path,
    options: Options,
    *,
    encoder: str | None = None,
    **hooks: Any,
) -> Summary:
    """Write the tuned encoder's features of a table's segments to a store, as `extract` does.

    Parameters
    ----------
    checkpoint
        One checkpoint: a store is of one encoder.
    options
        As of ``spk-extract``; its encoder and revision are the checkpoint's.
    hooks
        `stop` and `tell` of `extract`.
    """
    from ..extract.device import choose_device, choose_dtype
    from ..extract.encoder import Encoder
    from ..extract.run import extract

    paths = list(_checkpoints(checkpoint))
    if len(paths) > 1:
        raise InputError(
            f"{checkpoint}: holds {len(paths)} models, first {paths[0]}, expected one checkpoint, "
            "since a store is of one encoder; name one"
        )
    device = choose_device(options.device)
    tuned = Encoder(
        tuned_parts(_loaded(paths[0], encoder)),
        device=device,
        dtype=choose_dtype(options.dtype, device),
    )
    return extract(table, store, options, encoder=tuned, **hooks)


def tuned_parts(module: SpeakerModule) -> Any:
    """Return a model's encoder with a name and hash of its own.

    The hash is of the encoder's and of the tensors that trained, name by name.
    """
    from ..extract.weights import Parts

    trunk, known = module.trunk, dict(module.subject.encoder)
    digest = hashlib.sha256(known["weights_sha256"].encode())
    for name, tensor in sorted(trunk.state_dict().items()):
        if f"trunk.{name}" in module.trained_names():
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    known["weights_sha256"] = digest.hexdigest()
    known["encoder"] = f"{known['encoder']}, fine-tuned on {module.subject.task}"
    return Parts(trunk.model, trunk.front, known, trunk.rate)


def _loaded(path: Path, encoder: str | None) -> SpeakerModule:
    from .tuned import load_tuned

    return load_tuned(path, encoder=encoder)


def _checkpoints(path: str | Path) -> Iterator[Path]:
    """Yield a checkpoint, or those of a fleet's finished sessions."""
    path = Path(path)
    if not path.is_dir():
        yield path
        return
    folders = sorted(path.glob("version_*")) or [path]
    found = [result for result in map(read_result, folders) if result and result.checkpoint]
    if not found:
        raise InputError(
            f"{path}: holds no finished session, expected a folder of spk-finetune fit; run that "
            "first, or name a .ckpt file"
        )
    for folder, result in zip(folders, map(read_result, folders), strict=True):
        if result and result.checkpoint:
            yield _inside(folder, result.checkpoint)


def _inside(folder: Path, checkpoint: str) -> Path:
    """Return the checkpoint that a result names, which may not climb out of its fleet's folder."""
    if ".." in Path(checkpoint).parts:
        raise InputError(
            f"{folder / 'result.json'}: checkpoint is {checkpoint!r}, expected a file below "
            f"{folder.parent}; name the .ckpt file itself"
        )
    return folder.parent / checkpoint


def _rows_of(table: pd.DataFrame, split: str) -> pd.DataFrame:
    if split == "all":
        return table
    rows = table[table["split"] == split] if "split" in table else table[:0]
    if not len(rows):
        raise InputError(
            f"table: 0 of {len(table)} segments have split {split!r}, expected at least 1; "
            "pass --split all, or run spk-manifests split"
        )
    return rows


def _of(rows: pd.DataFrame, session: str) -> pd.DataFrame:
    return rows[rows["session"] == session]


def _named(
    module: SpeakerModule, rows: pd.DataFrame, config: Config
) -> tuple[pd.DataFrame, dict[str, str]]:
    import numpy as np

    from .data import Waveforms, read_all
    from .sets import reading_of, segments_of
    from .tuned import model_name, predictions, score_segments

    reading = reading_of(module.trunk, config)
    segments = segments_of(rows, config.audio_root)
    held, rejected = read_all(segments, reading)
    good = [segment for segment in segments if segment.segment_id not in rejected]
    codes = np.full(len(good), -1)
    (device,) = choose_devices(config, lambda line: None)
    scores = score_segments(
        module.to(device), Waveforms(good, codes, reading, held, config), config
    )
    kept = rows[~rows["segment_id"].isin(rejected)]
    name = model_name(module.subject, config)
    named = predictions(kept, scores, module.subject.labels, module.temperature, name)
    return named, {k: f"{found.code}: {found.message}" for k, found in rejected.items()}
