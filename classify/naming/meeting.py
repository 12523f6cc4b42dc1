"""Name the clusters of a diarized meeting: the whole flow of ``spk name apply``.

Read the turns, cut out overlapped speech, extract features with the voices' encoder, score clusters
and their segments, assign names as a whole, and report for each cluster how sure its name is, or
why it has none.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.audio.decoding import read_header
from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import is_special
from ...common.log import log as log_info
from ...manifests.formats.listed import locate, missing_error
from ...manifests.formats.pairing import unpaired_error
from ...manifests.formats.registry import read_turns
from .assignment import CONFLICT, MIXED, SHORT, STRANGER
from .clusters import evidence, turns_table
from .decision import Named, name_clusters
from .enrolment import Log
from .extraction import features_like, recording_hash
from .options import NamingOptions, check_one_audio
from .voices import UNKNOWN, Voices, check_enrolled

if TYPE_CHECKING:
    import pandas as pd

    from ...manifests.formats.turns import Annotation, Listed

NAME_IT = ", or name the recording of a single session with --audio in the place of --audio-root"


def apply(
    voices: Voices,
    diarization: str | Path,
    *,
    audio: str | Path | None = None,
    audio_root: str | Path | None = None,
    cache: str | Path | None = None,
    log: Log = log_info,
    **options: Any,
) -> Named:
    """Name the clusters of a diarization after enrolled people.

    Parameters
    ----------
    diarization
        RTTM, WhisperX JSON, ELAN's EAF, lhotse's JSONL, a NeMo manifest or another format, of one
        or several sessions.
    audio
        The recording, if there is only one session.
    audio_root
        Alternatively, the folder of recordings, each named after its session. Neither is needed if
        the diarization lists its recordings (Kaldi, NeMo).
    cache
        Folder that keeps the features for the next run.
    log
        Receives lines on what was left out, and on the basis of the names.
    options
        `false_accepts`, `threshold`, `present`, `same_name`, `min_purity`, `min_seconds`,
        `input_format`, `channel`, `encoder`, `device`, as `NamingOptions` has them.

    Raises
    ------
    InputError
        A file cannot be read, a session has no recording, the encoder is not the voices', or
        somebody in `present` is not enrolled.

    Examples
    --------
    >>> named = apply(voices, "meeting.rttm", audio="meeting.wav")  # doctest: +SKIP
    >>> named.clusters[["cluster", "name", "probability"]]  # doctest: +SKIP
         cluster       name  probability
    0 SPEAKER_00        Ann         0.98
    1 SPEAKER_01  unknown_1         0.93
    """
    settings = NamingOptions(**options)
    check_enrolled(settings.present_names, voices.names, "--present")
    annotation = read_diarization(diarization, settings.input_format, log, audio_root)
    check_one_audio(audio, audio_root, listed=bool(annotation.recordings))
    turns = turns_table(annotation.turns, diarization)
    recordings = _recordings(turns, annotation.recordings, audio, audio_root)
    segments = _segments(turns, recordings)
    place = nullcontext(cache) if cache is not None else tempfile.TemporaryDirectory()
    with place as folder:
        store = features_like(
            voices,
            segments,
            Path(folder, "features"),
            encoder=settings.encoder,
            audio_root="/",
            channel=settings.channel or voices.config["channel"],
            device=settings.device,
            log=log,
        )
        with_features = segments[segments["segment_id"].isin({*map(str, store.ids())})]
        if len(with_features) < len(segments):
            log(
                f"left out: {counted(len(segments) - len(with_features), 'segment')} that "
                "extraction rejected"
            )
        X = store.read(with_features["segment_id"], voices.layer)
    named = name_clusters(voices, turns, with_features.reset_index(drop=True), X, settings)
    for line in summary(named):
        log(line)
    return named


def read_diarization(
    diarization: str | Path,
    input_format: str | None,
    log: Log,
    audio_root: str | Path | None = None,
) -> Annotation:
    """Return the turns of a diarization, in the given format or the detected one; log its notes."""
    try:
        annotation = read_turns(diarization, input_format, audio_root=audio_root)
    except InputError as problem:  # it names the argument of `read_turns`
        text = re.sub(r"format=\.\.\.|--format", "--input-format", str(problem))
        raise InputError(text) from None
    for note in annotation.notes:
        log(f"{note.place}: {note.message}")
    return annotation


def _recordings(
    turns: pd.DataFrame,
    listed: Mapping[str, Listed],
    audio: str | Path | None,
    audio_root: str | Path | None,
) -> dict[str, Path]:
    """Return each session's recording; raise `InputError` if one is not audio."""
    recordings = _named_recordings(turns, listed, audio, audio_root)
    for path in recordings.values():
        read_header(path)
    return recordings


def _named_recordings(
    turns: pd.DataFrame,
    listed: Mapping[str, Listed],
    audio: str | Path | None,
    audio_root: str | Path | None,
) -> dict[str, Path]:
    counts = turns["session"].value_counts(sort=False)
    sessions = list(counts.index)
    if audio is None:
        pairing = locate(sessions, listed, audio_root)
        if pairing.missing and audio_root is None:
            raise missing_error(pairing, listed, counts.to_dict(), otherwise="")
        if pairing.missing:
            raise unpaired_error(pairing, str(audio_root), counts.to_dict(), otherwise=NAME_IT)
        return dict(pairing.recordings)
    path = Path(audio)
    if len(sessions) > 1:
        raise InputError(
            f"--audio: one recording is given for {counted(len(sessions), 'session')}, first "
            f"{sessions[0]!r}, expected one session; pass --audio-root FOLDER"
        )
    if is_special(path) or not path.is_file():
        raise InputError(f"{path}: is not a file, expected the recording; correct --audio")
    return {sessions[0]: path}


def _segments(turns: pd.DataFrame, recordings: Mapping[str, Path]) -> pd.DataFrame:
    """Return the evidence as a segment table; ids contain the recording's hash, start and end.

    Cached features thus belong to the audio, whatever a cluster is called in a later run.
    """
    rows = evidence(turns)
    hashes = {session: recording_hash(path) for session, path in recordings.items()}
    rows["audio"] = [str(recordings[session].absolute()) for session in rows["session"]]
    columns = (rows[name] for name in ("session", "start", "end", "channel"))
    rows["segment_id"] = [
        f"{hashes[session]}_{start:.4f}_{end:.4f}" + (f"_ch{channel}" if channel else "")
        for session, start, end, channel in zip(*columns, strict=True)
    ]
    return rows.assign(speaker=rows["cluster"])


def summary(named: Named) -> list[str]:
    """Return lines on how many clusters have a name, which are doubtful, and the threshold."""
    clusters = named.clusters
    unknown = clusters["reason"].isin([STRANGER, SHORT, MIXED, CONFLICT]) & clusters[
        "name"
    ].str.startswith(f"{UNKNOWN}_")
    reasons = clusters["reason"][unknown].value_counts()
    why = ", ".join(
        counted(count, reason) if reason == STRANGER else f"{count} {reason}"
        for reason, count in reasons.items()
    )
    what = "score" if named.voices.calibration.calibrator is None else "probability"
    lines = []
    if named.voices.calibration.calibrator is None:
        lines.append(named.voices.calibration_text())
    lines.append(
        f"{counted(len(clusters) - int(unknown.sum()), 'cluster', 'has', of=len(clusters))} a name"
        + (f", the others: {why}" if why else "")
        + f"; {int(clusters['doubtful'].sum())} doubtful; {what} of at least "
        f"{named.threshold:.3f} gives a name"
    )
    return lines
