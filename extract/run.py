"""Extract the features of a table's segments into a store: the whole flow of ``spk-extract``.

Plan, sort by length, batch by seconds, decode ahead, encode, commit. An unusable segment is
recorded with its reason and the run continues; committed segments are never encoded again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import current_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.audio.decoding import check_channel
from ..common.counts import counted
from ..common.engine.options import check_may_join
from ..common.engine.running import announce
from ..common.errors import InputError
from ..common.extras import check_extra, installed_versions
from ..common.log import log as log_info
from ..common.log import warn
from ..manifests.table import as_table
from .audio import Segment, channel_note, check_recordings, check_recordings_exist
from .options import ExtractOptions, ExtractSummary, parse_layers
from .pipeline.many_machines import RayRun
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


SAME_LENGTH = 1e-3  # s; cutting a segment to a file rounds it to whole samples

ENGINE_DEVICES = ("auto", "cpu", "cuda")  # allowed with --engine ray
RECORDED_IF_GIVEN = ("assumed", "baseline", "trained_on")  # of an encoder's provenance


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

    Segments already in the store are skipped. An unusable segment is rejected with its reason
    (`FeatureStore.rejected`, ``STORE.rejected.csv``), and the run continues.

    Parameters
    ----------
    table
        Segment table, or its file.
    store
        Folder; created if absent.
    options
        Settings of the run.
    encoder
        Hub id, folder or "demo", as in `ExtractOptions`; or a loaded encoder, such as a fine-tuned
        one.
    log
        Receives lines of progress, the last a summary; by default they go to `logging`, as a
        warning if segments were rejected.
    lock
        Hold the store's lock; without it, no other process may write there.
    settings
        Fields of `ExtractOptions` that override those of `options`.

    Returns
    -------
    FeatureStore
        The whole store, including segments of other tables.

    Raises
    ------
    InputError
        As in `run_extraction`.

    Examples
    --------
    >>> store = extract("table.csv", "features", audio_root="wav", layers=[4, 8])  # doctest: +SKIP
    >>> store.layers  # doctest: +SKIP
    [4, 8]

    With several devices, each has a process that imports your script again: call `extract` under
    ``if __name__ == "__main__":``.
    """
    if isinstance(encoder, (str, Path)):
        settings, encoder = {**settings, "encoder": encoder}, None
    options = replace(options or ExtractOptions(), **settings)
    rows = as_table(table)
    summary = run_extraction(rows, store, options, encoder=encoder, log=log, lock=lock)
    doubtful = summary.rejected or summary.failed
    (warn if doubtful and log is log_info else log)(str(summary))
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
    """Write the features of a table's segments to a store, and return a summary.

    Parameters
    ----------
    table
        Segment table (`spk.manifests.table`).
    store
        Folder; created if absent.
    encoder
        Used instead of the one named in `options`, such as a fine-tuned one.
    stop
        Called between batches; true ends the run, with all finished batches committed.
    log
        Receives lines of progress.
    lock
        Hold the store's lock; without it, no other process may write there.

    Raises
    ------
    InputError
        The extra `extract` is not installed, an option or file is unusable, the store has another
        configuration or features of a segment with another length, or, with `options.strict`, a
        segment is rejected.
    """
    check_extra("extract", "spk-extract")
    from .encoder.device import convert

    options = options or ExtractOptions()
    _check_engine(options, encoder)
    segments = choose_segments(table, options)
    # Segments of a missing recording are rejected, and not tried again; if all are missing, stop.
    check_recordings_exist(segments, options.audio_root, all_needed=False)
    devices, encoder = _devices(options, encoder)
    for note in encoder.notes:
        log(note)
    layers = parse_layers(options.layers, encoder.layer_count)
    most = check_recordings(segments, read_options(encoder, options))  # rather than in mid-run
    if note := channel_note(most, options.channel):
        log(note)
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
        _check_unchanged(segments, writer)
        job = _job(devices, encoder, layers, options, writer, log)
        try:
            batches = job.plan(segments)
            committed = _committed(segments, writer)
            with job.shown(batches) as progress, announce(writer.path, *committed) as update:
                interrupted = job.encode(batches, _updating(stop, update), progress)
        finally:  # an aborted run records its rejections too
            writer.commit()
            write_rejected(store, writer.rejections.values())
    if options.profile and profile:
        write_profile(options.profile, profile, job, encoder)
    summary = _sum_up(segments, writer, job, encoder)
    return replace(summary, store=str(store), interrupted=interrupted, difference=difference)


def _committed(segments: Sequence[Segment], writer: StoreWriter) -> tuple[int, Callable[[], int]]:
    """Return how many segments are requested, and a function counting those committed."""
    before = sum(segment.segment_id in writer.done for segment in segments)
    begun = len(writer.done)
    return len(segments), lambda: before + len(writer.done) - begun


def _updating(stop: Callable[[], bool], update: Callable[[], None]) -> Callable[[], bool]:
    """Return `stop` such that each call also updates the job's state."""

    def updated() -> bool:
        update()
        return stop()

    return updated


def _check_engine(options: ExtractOptions, encoder: Encoder | None) -> None:
    """Refuse settings that another engine does not support, before anything is loaded."""
    check_may_join(options.engine, options.ray_address)
    if options.engine == "local":
        return
    if options.device not in ENGINE_DEVICES:
        raise InputError(
            f"--device: value is {options.device!r} beside --engine ray, which hands out the "
            f"devices, expected one of {list(ENGINE_DEVICES)}; correct it"
        )
    if encoder is not None:
        raise InputError(
            "--engine: value is 'ray' beside an encoder that is loaded already, expected one that "
            "each machine can load; save the encoder to a folder and name that"
        )


def _job(
    devices: Sequence[str],
    encoder: Encoder,
    layers: Sequence[int],
    options: ExtractOptions,
    writer: StoreWriter,
    log: Callable[[str], object],
) -> ExtractionRun:
    """Return the run for these devices, on this machine or on several."""
    settings = encoder, layers, options, writer, log
    if options.engine == "ray":
        return RayRun(*settings)
    return ExtractionRun(*settings) if len(devices) == 1 else MultiDeviceRun(devices, *settings)


def _sum_up(
    segments: Sequence[Segment], writer: StoreWriter, job: ExtractionRun, encoder: Encoder
) -> ExtractSummary:
    """Return the summary of a run for these segments."""
    identity, rejected = encoder.provenance(), writer.rejected
    return ExtractSummary(
        store=str(writer.path),
        requested=len(segments),
        segments=sum(segment.segment_id in writer.done for segment in segments),
        new=job.new,
        seconds=job.seconds,
        wall=job.wall,
        rejected=Counter(rejected[s.segment_id] for s in segments if s.segment_id in rejected),
        compute_dtype=identity["compute_dtype"],
        untrained=identity["untrained"],
        shared=job.shared,
        trained_on=identity.get("trained_on", ""),
        failed=tuple(failed.unit.name for failed in job.failed),
        again=job.again,
    )


def _names(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return segment_id -> (session, speaker) for all rows outside the split ``test``."""
    usable = table[table["split"] != "test"] if "split" in table else table
    columns = (usable[name].tolist() for name in ("segment_id", "session", "speaker"))
    return {name: (session, speaker) for name, session, speaker in zip(*columns, strict=True)}


def _devices(options: ExtractOptions, encoder: Encoder | None) -> tuple[list[str], Encoder]:
    """Return the names of the devices, and the encoder on the first of them."""
    from .encoder.device import choose_devices
    from .encoder.encoder import load_encoder

    devices = choose_devices(options.device)
    imported = getattr(current_process(), "_inheriting", False)  # as multiprocessing.spawn checks
    if imported and len(devices) > 1:
        raise InputError(
            f"--device: value is {options.device!r} in a script that the process of each device "
            'imports again, expected extract() under `if __name__ == "__main__":`; put it there'
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


def _check_unchanged(segments: Sequence[Segment], writer: StoreWriter) -> None:
    """Check that segments have the length of the samples their features were made of."""
    durations = writer.durations
    changed = [
        segment
        for segment in segments
        if abs(durations.get(segment.segment_id, segment.duration) - segment.duration) > SAME_LENGTH
    ]
    if changed:
        first = changed[0]
        raise InputError(
            f"{writer.path}: {counted(len(changed), 'segment', 'has')} another length in the "
            f"table, first {first.segment_id!r} with {first.duration:.4f} s, expected "
            f"{durations[first.segment_id]:.4f} s, of which the features are; give changed "
            "segments another segment_id, or name another store"
        )


def configuration(
    encoder: Encoder, layers: Sequence[int], options: ExtractOptions
) -> dict[str, Any]:
    """Return the configuration that a store's rows depend on."""
    provenance = encoder.provenance()
    names = ("encoder", "revision", "weights_sha256", "encoder_config_sha256", "untrained")
    more = ("layer_definition", "compute_dtype", "rate", "normalization")
    return {
        "schema": SCHEMA,
        "kind": "frames" if options.frames else "pooled",
        **{name: provenance[name] for name in (*names, *more)},
        "layers": list(layers),
        "pooling": options.stored_pooling,
        "dim": row_width(options, encoder.hidden_size),
        "dtype": options.store_dtype,
        "channel": check_channel(options.channel),
        "max_seconds": options.max_seconds,
        **{name: provenance[name] for name in RECORDED_IF_GIVEN if name in provenance},
    }


def _versions() -> dict[str, str]:
    return installed_versions(("spk-toolkit", "torch", "transformers", "numpy", "soundfile"))
