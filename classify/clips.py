"""Fit a model of known voices from a folder of clips per person, without a table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.counts import counted
from ..common.errors import InputError
from ..extract.options import DEFAULT_ENCODER, ExtractOptions
from ..extract.store.reader import FeatureStore
from ..manifests.formats.clips import read_clips
from .experiment import fit_best
from .features import Log
from .options import SweepSettings
from .speaker_model import SpeakerModel

if TYPE_CHECKING:
    import pandas as pd


CLIPS = "clips"  # the split recorded for a model that was fitted on clips


def fit_clips(
    folder: str | Path,
    settings: SweepSettings | None = None,
    *,
    encoder: str = DEFAULT_ENCODER,
    log: Log = lambda text: None,
    before: Callable[[Mapping[str, Any]], None] = lambda foretold: None,
) -> tuple[SpeakerModel, list[str], pd.DataFrame]:
    """Fit a single model of all the voices in ``FOLDER/NAME/*.wav``.

    Features are extracted with the defaults of `spk-extract`, so that the model fits stores made
    with the same encoder.

    Parameters
    ----------
    folder
        As read by `manifests.formats.clips.read_clips`; one clip per person is enough.
    encoder
        As for `spk-extract`.

    Returns
    -------
    tuple
        As for `fit_best`.

    Raises
    ------
    InputError
        As for `read_clips`, `run_extraction` and `fit_best`; or none of a person's clips can be
        used, or two persons have the same clip.
    """
    from ..extract.run import run_extraction

    table, settings = read_clips(folder, log=log), settings or SweepSettings()
    options = ExtractOptions(audio_root=str(folder), encoder=encoder, resample=True)
    with tempfile.TemporaryDirectory() as draft:
        run_extraction(table, Path(draft) / "features", options, log=log)
        store = FeatureStore.open(Path(draft) / "features")
        log(f"{folder}: {counted(len(store), 'clip', 'has', of=len(table))} features")
        _check_usable(folder, table, store, log)
        _check_same_audio(folder, table, store)
        settings = replace(settings, within="corpus")
        return fit_best(table, store, settings, split=CLIPS, log=log, before=before)


def _check_usable(folder: str | Path, table: pd.DataFrame, store: FeatureStore, log: Log) -> None:
    """List the clips that were rejected; refuse a person without any usable clip."""
    reasons = {row["segment_id"]: row["message"] for row in store.rejected()}
    for speaker, clips in table.groupby("speaker", sort=False):
        unusable = clips[clips["segment_id"].isin(reasons)]
        lines = [f"{row.audio!r}: {reasons[row.segment_id]}" for row in unusable.itertuples()]
        if len(unusable) == len(clips):
            raise InputError(
                f"{folder}: 0 of {counted(len(clips), 'clip')} of {speaker!r} can be used, first "
                f"{lines[0]}, expected at least 1; replace one, or move the folder away"
            )
        for line in lines:
            log(f"left out: {line}")


def _check_same_audio(folder: str | Path, table: pd.DataFrame, store: FeatureStore) -> None:
    """Refuse two persons who have the same samples: at least one of the names is wrong."""
    clips = table.set_index("segment_id")
    rows, owners = store.rows(), dict[int, tuple[str, str]]()
    for segment_id, digest in zip(rows["segment_id"], rows["audio_digest"].tolist(), strict=True):
        audio, speaker = clips.loc[segment_id, ["audio", "speaker"]]
        first, owner = owners.setdefault(digest, (audio, speaker))
        if owner != speaker:
            raise InputError(
                f"{folder}: {first!r} and {audio!r} hold the same samples, expected clips of two "
                "persons to differ; delete the one under the wrong name"
            )
