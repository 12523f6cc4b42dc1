"""Names for the clusters of a diarized meeting: the whole flow of ``spk name apply``.

Read the turns, cut away where others speak, extract with the voices' encoder, score clusters and
their segments, assign names as a whole, and say of each cluster how sure that is and why it has
none.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.errors import InputError
from ...common.files import is_special
from ...common.log import log as log_info
from ...extract.run import run_extraction
from ...extract.options import ExtractOptions
from ...extract.store.reader import FeatureStore
from ...manifests.formats.pairing import pair, unpaired_error
from ...manifests.formats.rttm import read_rttm
from ...manifests.table import check_table
from .assignment import CONFLICT, MIXED, SHORT, STRANGER, assign, number_unknown, purity, rivals
from .calibration import best_other
from .clusters import evidence, seconds_of, speech_of, together, turns_table
from .enrolment import extraction_options
from .options import NamingOptions, check_one_audio
from .voices import UNKNOWN, Voices, check_enrolled, check_same_encoder

if TYPE_CHECKING:
    import pandas as pd

Log = Callable[[str], object]
DOUBT = 0.8  # a name, or that there is none, is doubtful below this probability
CLOSE = 0.1  # without calibration: within so much of the threshold
COLUMNS = ("session", "cluster", "name", "probability", "second", "margin", "seconds", "purity")
COLUMNS = (*COLUMNS, "reason")


@dataclass(frozen=True, eq=False)
class Named:
    """A diarization with names.

    Attributes
    ----------
    turns : DataFrame
        `session`, `start`, `end`, `cluster`, `name`, `probability`, `channel`, in order of time.
    clusters : DataFrame
        `COLUMNS`, `score`, `doubtful`: a row for each cluster, by session and speaking time.
        `seconds` is the speech that the name was judged by, `probability` that of the name, NaN
        where it says nothing; `second` is the next most probable person, `margin` how far the
        score lies above the next.
    evidence : DataFrame
        Segments that were scored: `session`, `cluster`, `start`, `end`, `audio`, `channel`,
        `best` (the person that the segment alone tells of), `score` (of that person).
    voices : Voices
    threshold : float
        Least probability, or without calibration score, that gave a name.
    """

    turns: pd.DataFrame
    clusters: pd.DataFrame
    evidence: pd.DataFrame
    voices: Voices
    options: NamingOptions
    threshold: float

    @property
    def names(self) -> dict[tuple[str, str], str]:
        """Return {(session, cluster): name}."""
        columns = (self.clusters[name] for name in ("session", "cluster", "name"))
        return {(s, c): name for s, c, name in zip(*columns, strict=True)}


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
    """Give the clusters of a diarization the names of enrolled people.

    Parameters
    ----------
    diarization
        RTTM, WhisperX JSON, ELAN's EAF or lhotse's JSONL, of one session or several.
    audio
        The recording of the only session; or else
    audio_root
        the folder of recordings, each named after its session.
    cache
        Folder that keeps the features; a second run takes them from there.
    log
        Receives lines of what was left out, and of what the names rest on.
    options
        `false_accepts`, `threshold`, `present`, `same_name`, `min_purity`, `min_seconds`,
        `channel`, `encoder`, `device`, as `NamingOptions` has them.

    Raises
    ------
    InputError
        A file cannot be read, a session has no recording, the encoder is another than the voices',
        or somebody present is not enrolled.

    Examples
    --------
    >>> named = apply(voices, "meeting.rttm", audio="meeting.wav")  # doctest: +SKIP
    >>> named.clusters[["cluster", "name", "probability"]]  # doctest: +SKIP
         cluster       name  probability
    0 SPEAKER_00        Ann         0.98
    1 SPEAKER_01  unknown_1         0.93
    """
    settings = NamingOptions(**options)
    check_one_audio(audio, audio_root)
    check_enrolled(settings.present_names, voices.names, "--present")
    turns = read_turns(diarization)
    recordings = _recordings(turns, audio, audio_root)
    segments = _segments(turns, recordings)
    place = nullcontext(cache) if cache is not None else tempfile.TemporaryDirectory()
    with place as folder:
        store, left_out = _extract(segments, voices, folder, settings, log)
        if left_out:
            log(f"left out: {left_out} segments that extraction rejected")
        kept = segments[segments["segment_id"].isin({*map(str, store.ids())})]
        X = store.read(kept["segment_id"], voices.layer)
    named = name_clusters(voices, turns, kept.reset_index(drop=True), X, settings)
    for line in summary(named):
        log(line)
    return named


def read_turns(diarization: str | Path) -> pd.DataFrame:
    """Return the turns of a diarization (`clusters.turns_table`)."""
    return turns_table(read_rttm(diarization).turns)


def _recordings(
    turns: pd.DataFrame, audio: str | Path | None, audio_root: str | Path | None
) -> dict[str, Path]:
    """Return each session's recording."""
    counts = turns["session"].value_counts(sort=False)
    sessions = list(counts.index)
    if audio_root is not None:
        pairing = pair(audio_root, sessions)
        if pairing.missing:
            raise unpaired_error(pairing, audio_root, counts.to_dict())
        return dict(pairing.recordings)
    path = Path(str(audio))
    if len(sessions) > 1:
        raise InputError(
            f"--audio: one recording is given for {len(sessions)} sessions, first {sessions[0]!r}, "
            "expected one session; pass --audio-root FOLDER"
        )
    if is_special(path) or not path.is_file():
        raise InputError(f"{path}: is not a file, expected the recording; correct --audio")
    return {sessions[0]: path}


def _segments(turns: pd.DataFrame, recordings: Mapping[str, Path]) -> pd.DataFrame:
    """Return the evidence as a segment table; ids hold the recording's hash, start and end.

    So features that are kept belong to the audio, whatever the cluster is called today.
    """
    rows = evidence(turns)
    hashes = {session: _hash_of(path) for session, path in recordings.items()}
    rows["audio"] = [str(recordings[session].absolute()) for session in rows["session"]]
    columns = (rows[name] for name in ("session", "start", "end", "channel"))
    rows["segment_id"] = [
        f"{hashes[session]}_{start:.4f}_{end:.4f}" + (f"_ch{channel}" if channel else "")
        for session, start, end, channel in zip(*columns, strict=True)
    ]
    return rows.assign(speaker=rows["cluster"])


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _extract(
    segments: pd.DataFrame,
    voices: Voices,
    folder: str | Path,
    settings: NamingOptions,
    log: Log,
) -> tuple[FeatureStore, int]:
    """Return a store with the segments' features, and how many of them were rejected."""
    store = Path(folder, "features")
    options = ExtractOptions(
        **extraction_options(voices, settings.encoder),
        audio_root="/",
        channel=settings.channel or voices.config["channel"],
        device=settings.device,
        store_dtype=voices.config["dtype"],
    )
    summary = run_extraction(check_table(segments), store, options, log=log)
    opened = FeatureStore.open(store)
    check_same_encoder(voices, opened.config, options.encoder)
    return opened, summary.asked - summary.segments


def name_clusters(
    voices: Voices,
    turns: pd.DataFrame,
    segments: pd.DataFrame,
    X: np.ndarray,
    settings: NamingOptions | None = None,
) -> Named:
    """Name the clusters of turns by their segments' vectors X (n, dim): all but the extraction.

    Parameters
    ----------
    turns
        As `clusters.turns_table` returns them.
    segments
        A row for each vector: `session`, `cluster`, `start`, `end` (s).
    """
    import pandas as pd

    settings = settings or NamingOptions()
    threshold = settings.threshold
    if threshold is None:
        threshold = voices.calibration.threshold(settings.false_accepts)
    scores = _present(voices, voices.scorer.scores(X.astype(np.float64)), settings)
    segments = segments.assign(best="", score=np.nan)
    if len(segments):
        best = np.nanargmax(scores, axis=1)
        segments["best"] = np.array(voices.names)[best]
        segments["score"] = scores[np.arange(len(best)), best]
    rows: list[dict[str, object]] = []
    for session, part in turns.groupby("session", sort=True):
        here = (segments["session"] == session).to_numpy()
        judged = _Session(part, segments[here], X[here], scores[here], voices, settings, threshold)
        rows += judged.rows(str(session))
    clusters = pd.DataFrame(rows)
    named = clusters.set_index(["session", "cluster"])[["name", "probability"]]
    turns = turns.join(named, on=["session", "cluster"])
    columns = ["session", "start", "end", "cluster", "name", "probability", "channel"]
    return Named(turns[columns], clusters, segments, voices, settings, threshold)


def _present(voices: Voices, scores: np.ndarray, settings: NamingOptions) -> np.ndarray:
    """Return scores (n, P) with NaN for whoever was not there."""
    names = settings.present_names
    absent = [bool(names) and name not in names for name in voices.names]
    return np.where(np.array(absent), np.nan, scores)


class _Session:
    """The clusters of one session, and what is found of each."""

    def __init__(
        self,
        turns: pd.DataFrame,
        segments: pd.DataFrame,
        X: np.ndarray,
        scores: np.ndarray,
        voices: Voices,
        settings: NamingOptions,
        threshold: float,
    ) -> None:
        self.speech = speech_of(turns)
        self.total = {name: seconds_of(spans) for name, spans in self.speech.items()}
        self.clusters = sorted(self.speech, key=lambda name: (-self.total[name], name))
        self.voices, self.settings = voices, settings
        lengths = (segments["end"] - segments["start"]).to_numpy()
        self._rows = [(segments["cluster"] == name).to_numpy() for name in self.clusters]
        self._lengths, self._scores = lengths, scores
        self.seconds = np.array([lengths[rows].sum() for rows in self._rows])
        self.scores = np.full((len(self.clusters), len(voices.names)), np.nan)
        judged = self.seconds > 0
        if judged.any():
            means = [lengths[rows] @ X[rows] / lengths[rows].sum() for rows in self._rows if rows.any()]
            raw = voices.scorer.scores(np.stack(means).astype(np.float64))
            self.scores[judged] = _present(voices, raw, settings)
        self.logs = self._log_probabilities(judged)
        self.gains = self.scores - threshold
        if self.logs is not None:
            self.gains = self.logs[:, :-1] - np.log(max(threshold, 1e-300))

    def _log_probabilities(self, judged: np.ndarray) -> np.ndarray | None:
        calibrator = self.voices.calibration.calibrator
        if calibrator is None:
            return None
        logs = np.full((len(self.clusters), len(self.voices.names) + 1), np.nan)
        logs[judged] = calibrator.log_probabilities(self.scores[judged], self.seconds[judged])
        return logs

    def purity(self, cluster: int, person: int) -> float:
        """Return the share of speech whose own best is a person, of those no better than it."""
        rows, own = self._rows[cluster], self.scores[cluster]
        scores = self._scores[rows][:, own <= own[person]]
        columns = np.flatnonzero(own <= own[person])
        return purity(columns[np.nanargmax(scores, axis=1)], self._lengths[rows], person)

    def rows(self, session: str) -> list[dict[str, object]]:
        """Return a row of `Named.clusters` for each cluster."""
        reasons = [self._reason(k) for k in range(len(self.clusters))]
        gains = self.gains.copy()
        gains[[reason != "" for reason in reasons]] = -1.0
        for k, person in zip(*np.nonzero(gains >= 0), strict=True):
            if self.purity(k, person) < self.settings.min_purity:
                gains[k, person] = -1.0
        at_once = together(self.speech)
        pairs = rivals(self.clusters, self.speech, at_once, self.settings.same_name)
        given = assign(gains, pairs)
        nobody = {self.clusters[k]: self.total[self.clusters[k]] for k in np.flatnonzero(given < 0)}
        labels = number_unknown(nobody)
        return [
            {
                "session": session,
                "cluster": name,
                "name": labels.get(name) or self.voices.names[given[k]],
                **self._facts(k, int(given[k]), reasons[k]),
            }
            for k, name in enumerate(self.clusters)
        ]

    def _reason(self, k: int) -> str:
        """Return why a cluster can have no name, whatever the others have."""
        if not self.seconds[k] or self.seconds[k] < self.settings.min_seconds:
            return SHORT
        best = int(np.nanargmax(self.scores[k]))
        if not self.gains[k, best] >= 0:
            return STRANGER
        return MIXED if self.purity(k, best) < self.settings.min_purity else ""

    def _facts(self, k: int, person: int, reason: str) -> dict[str, object]:
        nothing = {"probability": np.nan, "second": "", "margin": np.nan, "seconds": 0.0}
        if not self.seconds[k]:
            facts = {**nothing, "purity": np.nan, "reason": SHORT, "score": np.nan}
            return {**facts, "doubtful": True}
        scores, order = self.scores[k], np.argsort(-np.nan_to_num(self.scores[k], nan=-np.inf))
        best = int(order[0]) if person < 0 else person
        if not reason and best != int(order[0]):
            reason = CONFLICT
        if not reason and person < 0:
            reason = CONFLICT
        others = [int(j) for j in order if j != person and not np.isnan(scores[j])]
        margin = float((scores - best_other(scores[None])[0])[best])
        probability = self._probability(k, person, reason)
        facts: dict[str, object] = {
            "probability": probability,
            "second": self.voices.names[others[0]] if others else "",
            "margin": margin,
            "seconds": float(self.seconds[k]),
            "purity": self.purity(k, best),
            "reason": reason,
            "score": float(scores[best]),
        }
        close = abs(self.gains[k, best]) < CLOSE if self.logs is None else probability < DOUBT
        return {**facts, "doubtful": bool(close or reason in (SHORT, MIXED, CONFLICT))}

    def _probability(self, k: int, person: int, reason: str) -> float:
        if self.logs is None or (person < 0 and reason != STRANGER):
            return float("nan")
        return float(np.exp(self.logs[k, person]))  # -1 is the last column, `unknown`


def summary(named: Named) -> list[str]:
    """Say how many clusters have a name, who is doubtful, and by which threshold."""
    clusters = named.clusters
    unknown = clusters["reason"].isin([STRANGER, SHORT, MIXED, CONFLICT]) & clusters[
        "name"
    ].str.startswith(f"{UNKNOWN}_")
    reasons = clusters["reason"][unknown].value_counts()
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    what = "score" if named.voices.calibration.calibrator is None else "probability"
    lines = []
    if named.voices.calibration.calibrator is None:
        lines.append(named.voices.calibration_text())
    lines.append(
        f"{len(clusters) - int(unknown.sum())} of {len(clusters)} clusters have a name"
        + (f", the others: {why}" if why else "")
        + f"; {int(clusters['doubtful'].sum())} doubtful; {what} of at least "
        f"{named.threshold:.3f} gives a name"
    )
    return lines
