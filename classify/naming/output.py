"""Write the files of a named diarization: RTTM, WhisperX JSON, subtitles, the list of names.

Each session has its own files, ``SESSION.rttm`` and so on; ``names.csv`` lists the clusters of all
sessions; ``naming.json`` records how they were made, who was enrolled, and the list of files. All
files are drafted first: if one of them may not be replaced, none is. When files of an earlier run
are replaced, its other files are removed.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.errors import InputError
from ...common.files import atomic_write
from ...common.names import normal_name
from ...common.outputs import check_own_folder, has_to_be_written, protecting, same_place
from ...manifests.formats.json_values import parse_json, read_json_text
from ...manifests.formats.registry import read_turns, write_turns
from ...manifests.formats.whisperx import LISTS, rename_speakers
from .decision import COLUMNS, Named, rounded_down

if TYPE_CHECKING:
    import pandas as pd

MARK, LIST, REVIEW = "naming.json", "names.csv", "review.html"
SUBTITLES = ("srt", "vtt", "txt")
PLACES = ("input_format", "encoder", "device")  # options that do not affect names
DIGITS = 4  # decimals of probabilities and seconds


def write_named(
    named: Named,
    folder: str | Path,
    *,
    diarization: str | Path | None = None,
    formats: Sequence[str] = ("rttm", "json", "csv"),
    review: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write the result of `apply` to a folder, all of it or nothing.

    Parameters
    ----------
    diarization
        The diarization that was named: a WhisperX JSON is written back with only its speakers
        changed.
    formats
        Some of ``rttm json csv srt vtt txt``.
    review
        Also write the page to listen to (`review.review_page`).
    overwrite
        Replace existing files that have other content.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    InputError
        A file exists with other content, or cannot be written.
    """
    folder = Path(folder)
    check_own_folder(folder, MARK, [LIST, REVIEW])
    with tempfile.TemporaryDirectory() as draft:
        contents = dict(_contents(named, Path(draft), diarization, formats))
    if review:
        from .review import review_page

        contents[REVIEW] = review_page(named).encode()
    described, before = _described(named), _before(folder)
    stale = {*map(str, before.pop("files", []))} - {*contents}
    mark = {**described, "files": sorted({*contents} | (stale if before == described else set()))}
    paths = {folder / name: content for name, content in contents.items()}
    for path in paths if diarization is not None else ():
        if same_place(path, Path(str(diarization))):
            raise InputError(
                f"{path}: it is also the input DIARIZATION, expected another place; name another "
                "folder"
            )
    with protecting([] if overwrite else [folder]):
        for path, content in paths.items():
            has_to_be_written(path, content)
        if before != described:
            has_to_be_written(folder / MARK, _json(mark))
    atomic_write(folder / MARK, _json(mark))
    for name in stale if before != described else ():
        (folder / Path(name).name).unlink(missing_ok=True)
    for path, content in paths.items():
        atomic_write(path, content)
    return list(paths)


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()


def _before(folder: Path) -> dict[str, Any]:
    """Return what an earlier run wrote to `MARK`; empty if it cannot be read."""
    try:
        described = json.loads((folder / MARK).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return described if isinstance(described, dict) else {}


def _contents(
    named: Named, draft: Path, diarization: str | Path | None, formats: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file."""
    if "csv" in formats:
        yield LIST, names_table(named).to_csv(index=False, lineterminator="\n").encode()
    turns = named.turns.assign(speaker=named.turns["name"])
    for form in ("rttm", *SUBTITLES):
        if form in formats:
            for path in write_turns(turns, draft / form, form):
                yield path.name, path.read_bytes()
    if "json" in formats:
        for session, part in named.turns.groupby("session", sort=True):
            document = _document(named, str(session), part, diarization)
            yield f"{session}.json", _json(document)


def names_table(named: Named) -> pd.DataFrame:
    """Return the rows of ``names.csv``."""
    rows = named.clusters[list(COLUMNS)]
    chances = [rounded_down(chance, DIGITS) for chance in rows["probability"]]
    return rows.assign(probability=chances).round(DIGITS)


def _described(named: Named) -> dict[str, Any]:
    """Return the content of `MARK` without the files, as it reads back from JSON."""
    from importlib.metadata import version

    voices, calibration = named.voices, named.voices.calibration
    sums = hashlib.sha256(voices.stretches.sums.tobytes()).hexdigest()
    return {
        "enrolled": voices.names,
        "candidates": named.options.present_names or voices.names,
        "encoder": voices.config["encoder"],
        "fingerprint": voices.fingerprint,
        "layer": voices.layer,
        "voices_sha256": sums,
        "scores": voices.scorer.method,
        "calibrated": calibration.calibrator is not None,
        "threshold": named.threshold,
        "options": {k: v for k, v in asdict(named.options).items() if k not in PLACES},
        "version": version("spk-toolkit"),
    }


def _document(
    named: Named, session: str, turns: pd.DataFrame, diarization: str | Path | None
) -> dict[str, Any]:
    """Return a session as WhisperX JSON: the given document if it is one, else its turns."""
    rows = named.clusters[named.clusters["session"] == session]
    columns = zip(rows["cluster"], rows["name"], rows["probability"], strict=True)
    names = {
        cluster: (name, None if math.isnan(chance) else rounded_down(chance, DIGITS))
        for cluster, name, chance in columns
    }
    given = _given(diarization)
    if given is not None:
        return rename_speakers(given, {text: names[key] for text, key in _labels(given, names)})
    keys = ["start", "end", "text", "cluster"]
    parts = turns[keys].rename(columns={"cluster": "speaker"}).to_dict("records")
    segments = [{k: v for k, v in part.items() if k != "text" or v} for part in parts]
    return rename_speakers({"segments": segments}, names)


def _given(diarization: str | Path | None) -> dict[str, Any] | None:
    """Return the document of a WhisperX JSON; None for other formats."""
    if diarization is None or Path(diarization).suffix.lower() != ".json":
        return None
    try:
        document = parse_json(read_json_text(Path(diarization)), str(diarization))
    except InputError:  # lines of JSON
        return None
    whisperx = isinstance(document, dict) and isinstance(document.get("segments"), list)
    return document if whisperx else None


def _labels(document: Mapping[str, Any], names: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (speaker as in the document, cluster) for each speaker that has a name."""
    for key in LISTS:
        for row in document.get(key) or []:
            for part in [row, *((row.get("words") if isinstance(row, dict) else None) or [])]:
                text = part.get("speaker") if isinstance(part, dict) else None
                if isinstance(text, str) and normal_name(text) in names:
                    yield text, normal_name(text)


def read_named(folder: str | Path) -> tuple[pd.DataFrame, list[str]]:
    """Return the turns that `write_named` wrote to a folder, and who was enrolled.

    Raises
    ------
    InputError
        The folder holds no RTTM or no `MARK`.
    """
    from .clusters import turns_table

    folder = Path(folder)
    try:
        described = json.loads((folder / MARK).read_bytes())
        enrolled = [str(name) for name in described["enrolled"]]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise InputError(
            f"{folder}: no {MARK} can be read there ({reason}), expected the folder that spk name "
            "apply wrote; name that"
        ) from None
    files = sorted(folder.glob("*.rttm"))
    if not files:
        raise InputError(
            f"{folder}: holds 0 RTTMs, expected those of spk name apply; run it with --formats "
            "rttm,json,csv"
        )
    turns = [turn for file in files for turn in read_turns(file, "rttm").turns]
    return turns_table(turns, folder), enrolled
