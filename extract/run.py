"""A table and its audio become a store of features: the whole flow of ``spk-extract``.

Plan, sort by length, batch by seconds, decode ahead, encode, commit. A segment that cannot be used
is recorded with its reason and the rest goes on; what is committed is never done again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import current_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.audio.decoding import check_channel
from ..common.errors import InputError
from ..common.extras import check_extra, installed_versions
from ..common.log import log as log_info
from ..common.log import warn
from ..manifests.table import as_table
from .audio import Segment, check_recordings, check_recordings_exist
from .options import ExtractOptions, ExtractSummary, parse_layers
from .pipeline.multi_device import MultiDeviceRun
from .pipeline.runner import ExtractionRun, read_options
from .planning import choose_segments, row_width
from .profiling import Profile, recording, write_profile
from .store.layout import write_rejected
from .store.reader import FeatureStore
from .store.shard import SCHEMA
from .store.writer import StoreWriter
from .verification import verify_batches

if TYPE_CHECKING:
    import pandas as pd

    from .encoder.encoder import Encoder


SAME_LENGTH = 1e-3  # s; a segment cut to a file of its own is a whole number of samples


def extract(
    table: pd.DataFrame | str | Path,
    store: str | Path,
    options: ExtractOptions | None = None,
    *,
    encoder: Encoder | str | Path | None = None,
    log: Callable[[str], object] = log_info,
    lock: bool = True,
    **settings: Any,
) -> FeatureStore:
    """Write the features of a table's segments to a store, and open it.

    What is there already is not done again. A segment that cannot be used is rejected with its
    reason (`FeatureStore.rejected`, ``STORE.rejected.csv``), and the rest goes on.

    Parameters
    ----------
    table
        Segment table, or its file.
    store
        Folder; made if absent.
    options
        Settings of the run.
    encoder
        Hub id, folder or "demo", as `ExtractOptions` has it; or one that is loaded already, such
        as a fine-tuned one.
    log
        Receives a line for what is worth knowing, and a last one that sums up; by default
        `logging` does, and warns where segments were rejected.
    lock
        Hold the store's lock; without it, no other process may write there.
    settings
        Some of `ExtractOptions` by name, in the place of those of `options`.

    Returns
    -------
    FeatureStore
        All that the store holds, also of other tables.

    Raises
    ------
    InputError
        As `run_extraction` does.

    Examples
    --------
    >>> store = extract("table.csv", "features", audio_root="wav", layers=[4, 8])  # doctest: +SKIP
    >>> store.layers  # doctest: +SKIP
    [4, 8]

    Several devices are a process each, which imports your script anew: call this under
    ``if __name__ == "__main__":`` there.
    """
    if isinstance(encoder, (str, Path)):
        settings, encoder = {**settings, "encoder": encoder}, None
    options = replace(options or ExtractOptions(), **settings)
    rows = as_table(table)
    summary = run_extraction(rows, store, options, encoder=encoder, log=log, lock=lock)
    (warn if summary.rejected and log is log_info else log)(str(summary))
    return FeatureStore.open(store)


def run_extraction(
    table: pd.DataFrame,
    store: str | Path,
    options: ExtractOptions | None = None,
    *,
    encoder: Encoder | None = None,
    stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], object] = lambda line: None,
    lock: bool = True,
) -> ExtractSummary:
    """Write the features of a table's segments to a store, and sum up what was done.

    Parameters
    ----------
    table
        Segment table (`spk.manifests.table`).
    store
        Folder; made if absent.
    encoder
        Taken instead of the one that `options` name, such as a fine-tuned one.
    stop
        Asked between batches; true ends the run with all that was computed committed.
    log
        Is given what the user should know at once, a line at a time.
    lock
        Hold the store's lock; without it, no other process may write there.

    Raises
    ------
    InputError
        The extra `extract` is not installed, an option or file is not what the run needs, the
        store is of another configuration or has features of a segment of other length, or, with
        `options.strict`, a segment is rejected.
    """
    check_extra("extract", "spk-extract")
    from .encoder.device import convert

    options = options or ExtractOptions()
    segments = choose_segments(table, options)
    # One that is absent is rejected with its segments; were all, none would be tried again.
    check_recordings_exist(segments, options.audio_root, all_needed=False)
    devices, encoder = _devices(options, encoder)
    for note in encoder.notes:
        log(note)
    layers = parse_layers(options.layers, encoder.layer_count)
    check_recordings(segments, read_options(encoder, options))  # not in the middle of a long run
    difference = None
    if options.verify:
        names = _names(table)
        difference = verify_batches(encoder, segments, layers, options, log, names=names)
    config = configuration(encoder, layers, options)
    profile = Profile() if options.profile else None
    with (
        recording(profile),
        StoreWriter(store, config, versions=_versions(), convert=convert, lock=lock) as writer,
    ):
        _refuse_changed(segments, writer)
        settings = encoder, layers, options, writer, log
        job = ExtractionRun(*settings) if len(devices) == 1 else MultiDeviceRun(devices, *settings)
        try:
            batches = job.plan(segments)
            with job.shown(batches) as progress:
                interrupted = job.encode(batches, stop, progress)
        finally:  # what ends a run early does not take its rejections off the list
            writer.commit()
            write_rejected(store, writer.rejections.values())
    if options.profile and profile:
        write_profile(options.profile, profile, job, encoder)
    summary = _sum_up(segments, writer, job, encoder)
    return replace(summary, store=str(store), interrupted=interrupted, difference=difference)


def _sum_up(
    segments: Sequence[Segment], writer: StoreWriter, job: ExtractionRun, encoder: Encoder
) -> ExtractSummary:
    """Return what a run did for these segments."""
    identity, rejected = encoder.provenance(), writer.rejected
    return ExtractSummary(
        store=str(writer.path),
        asked=len(segments),
        segments=sum(segment.segment_id in writer.done for segment in segments),
        new=job.new,
        seconds=job.seconds,
        wall=job.wall,
        rejected=Counter(rejected[s.segment_id] for s in segments if s.segment_id in rejected),
        compute_dtype=identity["compute_dtype"],
        untrained=identity["untrained"],
        trained_on=identity.get("trained_on", ""),
    )


def _names(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return segment_id -> (session, speaker) of all that is not of the split ``test``."""
    kept = table[table["split"] != "test"] if "split" in table else table
    columns = (kept[name].tolist() for name in ("segment_id", "session", "speaker"))
    return {name: (session, speaker) for name, session, speaker in zip(*columns, strict=True)}


def _devices(options: ExtractOptions, encoder: Encoder | None) -> tuple[list[str], Encoder]:
    """Return the names of the devices, and the encoder on the first of them."""
    from .encoder.device import choose_devices
    from .encoder.encoder import load_encoder

    devices = choose_devices(options.device)
    imported = getattr(current_process(), "_inheriting", False)  # what spawn itself asks
    if imported and len(devices) > 1:
        raise InputError(
            f"--device: value is {options.device!r} in a script that the process of each device "
            'imports anew, expected extract() under `if __name__ == "__main__":`; put it there'
        )
    if encoder is not None and len(devices) > 1:
        raise InputError(
            f"--device: value is {options.device!r} beside an encoder that is loaded already, "
            "expected one device; save the encoder to a folder and name that"
        )
    return devices, encoder or load_encoder(
        options.encoder,
        revision=options.revision,
        normalize=options.normalize,
        device=devices[0],
        dtype=options.dtype,
    )


def _refuse_changed(segments: Sequence[Segment], writer: StoreWriter) -> None:
    """Refuse segments whose length is no longer that of the samples their features came from."""
    known = writer.durations
    changed = [
        segment
        for segment in segments
        if abs(known.get(segment.segment_id, segment.duration) - segment.duration) > SAME_LENGTH
    ]
    if changed:
        first = changed[0]
        raise InputError(
            f"{writer.path}: {len(changed)} segments have another length in the table, first "
            f"{first.segment_id!r} with {first.duration:.4f} s, expected "
            f"{known[first.segment_id]:.4f} s, of which the features are; give changed segments "
            "another segment_id, or name another store"
        )


def configuration(
    encoder: Encoder, layers: Sequence[int], options: ExtractOptions
) -> dict[str, Any]:
    """Return what the store's rows depend on; another configuration is another store."""
    known = encoder.provenance()
    names = ("encoder", "revision", "weights_sha256", "encoder_config_sha256", "untrained")
    more = ("layer_definition", "compute_dtype", "rate", "normalization")
    return {
        "schema": SCHEMA,
        "kind": "frames" if options.frames else "pooled",
        **{name: known[name] for name in (*names, *more)},
        "layers": list(layers),
        "pooling": options.stored_pooling,
        "dim": row_width(options, encoder.hidden_size),
        "dtype": options.store_dtype,
        "channel": check_channel(options.channel),
        "max_seconds": options.max_seconds,
        **{name: known[name] for name in ("assumed", "baseline", "trained_on") if name in known},
    }


def _versions() -> dict[str, str]:
    return installed_versions(("spk-toolkit", "torch", "transformers", "numpy", "soundfile"))
