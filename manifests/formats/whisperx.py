"""Read and write WhisperX JSON, and the JSON of related programs.

| document | turns |
|---|---|
| ``{"segments": [...]}`` (WhisperX 3, whisper, whisper-timestamped) | segments with a `speaker` |
| ``[{"speaker", "start", "end"}, ...]`` (a list of diarised turns) | its items |
| ``[{"session_id", "speaker", "start_time", "end_time", "words"}, ...]`` (SegLST, meeteval) | its items, of the session that each names |
| ``{"transcription": [...]}`` (whisper.cpp) | items with a `speaker` other than ``?``, from milliseconds |

A turn is a segment with the segment's speaker; words with another speaker are ignored, and so is
`word_segments`, which repeats the words. A segment without a speaker (absent, null or empty), or
whose end is at its start, gives no turn; both kinds are counted in a note. The session is the
file's name, except in SegLST. Output has the keys `start`, `end`, `text` and `speaker`, with
numbers unchanged.
"""  # noqa: E501 (a table)

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ...common.errors import InputError
from ...common.files import atomic_write
from .json_values import check_not_nemo, number, parse_json, read_json_text, text
from .turns import Annotation, Turn, collect_turns, read_files

LISTS = ("segments", "word_segments")  # lists in a document that have speakers
UNSURE = "?"  # whisper.cpp's speaker if two channels are equally loud


class _Keys(NamedTuple):
    """The keys of a turn's parts in one kind of document; `unit` is that of its times, in 1/s."""

    session: str
    start: str
    end: str
    text: str
    unit: int = 1


SEGMENT = _Keys("", "start", "end", "text")
SEGLST = _Keys("session_id", "start_time", "end_time", "words")
WHISPER_CPP = _Keys("", "from", "to", "text", 1000)


def read_whisperx(path: str | Path, *, skip_bad: bool = False) -> Annotation:
    """Read one JSON file, or all ``*.json`` below a folder.

    Parameters
    ----------
    path
        File or folder, searched recursively.
    skip_bad
        Drop bad segments and files, with a note each, instead of stopping at the first.

    Returns
    -------
    Annotation
        Turns in file order, times in seconds.

    Raises
    ------
    InputError
        A file is of another kind, or a segment is bad (file and number of the segment).
    """
    return read_files(
        path, (".json",), lambda file, name: _read(file, name, skip_bad), skip_bad=skip_bad
    )


def _read(file: Path, name: str, skip_bad: bool) -> Annotation:
    content = read_json_text(file)
    try:
        keys, rows = _rows_of(parse_json(content, name), name)
    except InputError:
        check_not_nemo(content, name, "WhisperX JSON")
        raise
    return collect_turns(
        enumerate(rows),
        lambda row, index, place: _turn(row, keys, file.stem, index, place),
        name,
        unit="segment",
        skip_bad=skip_bad,
    )


def _rows_of(document: Any, name: str) -> tuple[_Keys, list[Any]]:
    """Return a document's keys, and its rows."""
    if isinstance(document, dict) and isinstance(document.get("segments"), list):
        return SEGMENT, document["segments"]
    if isinstance(document, dict) and isinstance(document.get("transcription"), list):
        return WHISPER_CPP, [_with_offsets(row) for row in document["transcription"]]
    if isinstance(document, list):
        first = document[0] if document and isinstance(document[0], dict) else {}
        if SEGLST.session in first:
            return SEGLST, document
        if not document or {"speaker", "start", "end"} <= first.keys():
            return SEGMENT, document
        if "recording_id" in first:
            raise InputError(
                f"{name}: is a lhotse manifest, expected WhisperX JSON; run spk-manifests lhotse "
                "on it"
            )
    raise InputError(f"{name}: {_other_document(document)}")


def _with_offsets(row: Any) -> Any:
    """Return an item of whisper.cpp with its times, which are nested one object deeper."""
    offsets = row.get("offsets") if isinstance(row, dict) else None
    return {**row, **offsets} if isinstance(offsets, dict) else row


def _other_document(document: Any) -> str:
    if not isinstance(document, dict):
        return "holds no object with 'segments' and no list of turns; name another file"
    keys = list(document)[:8]
    near = get_close_matches("segments", map(str, document), 1, 0.75)
    repair = f"rename {near[0]!r}" if near else "name the JSON that WhisperX or whisper wrote"
    return f"keys are {keys}, expected 'segments', a list; {repair}"


def _turn(row: Any, keys: _Keys, session: str, index: int, place: str) -> Turn:
    if not isinstance(row, dict):
        raise InputError(f"{place}: is {repr(row)[:40]}, expected an object; correct it")
    speaker = text(row, "speaker", place)
    start, end = (number(row, key, place) / keys.unit for key in (keys.start, keys.end))
    return Turn(
        text(row, keys.session, place) if keys.session else session,
        "" if speaker.strip() == UNSURE else speaker,
        *(start, end, index, place),
        text=text(row, keys.text, place),
    )


def write_whisperx(turns: Sequence[Turn], path: str | Path) -> None:
    """Write the turns of one session as WhisperX JSON (UTF-8), times unchanged."""
    atomic_write(path, _dumped({"segments": [*_segments(turns)]}))


def _segments(turns: Sequence[Turn]) -> Iterator[dict[str, Any]]:
    for turn in turns:
        yield {
            "start": turn.start,
            "end": turn.end,
            "text": turn.text,
            "speaker": turn.speaker,
        }


def write_seglst(turns: Sequence[Turn], path: str | Path) -> None:
    """Write turns of any number of sessions as one SegLST (meeteval), times unchanged."""
    rows = [
        {
            "session_id": turn.session,
            "speaker": turn.speaker,
            "start_time": turn.start,
            "end_time": turn.end,
            "words": turn.text,
        }
        for turn in turns
    ]
    atomic_write(path, _dumped(rows))


def _dumped(document: Any) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()


def rename_speakers(
    document: dict[str, Any], names: Mapping[str, tuple[str, float | None]]
) -> dict[str, Any]:
    """Return a WhisperX document with its speakers renamed.

    Parameters
    ----------
    document
        As returned by `json.load`; it is not changed.
    names
        Speaker in the document -> name and probability (0..1), or None if there is none.

    Returns
    -------
    dict
        The same document, in the same order. In segments, their words and `word_segments` whose
        `speaker` is a key of `names`, `speaker` becomes the name, followed by `speaker_confidence`,
        the probability (absent if None), and `diarized_speaker`, the original speaker.

    Examples
    --------
    >>> document = {"segments": [{"start": 0, "speaker": "SPEAKER_00"}, {"start": 1}]}
    >>> rename_speakers(document, {"SPEAKER_00": ("Anna", 0.9)})["segments"][0]
    {'start': 0, 'speaker': 'Anna', 'speaker_confidence': 0.9, 'diarized_speaker': 'SPEAKER_00'}
    """
    return {
        key: [_renamed_row(row, names) for row in rows]
        if key in LISTS and isinstance(rows, list)
        else rows
        for key, rows in document.items()
    }


def _renamed_row(row: Any, names: Mapping[str, tuple[str, float | None]]) -> Any:
    """Return a segment or word, including the words in it, with its speaker renamed."""
    if not isinstance(row, dict):
        return row
    speaker = row.get("speaker")
    name, probability = (names.get(speaker) if isinstance(speaker, str) else None) or (None, None)
    renamed: dict[str, Any] = {}
    for key, value in row.items():
        if key == "words" and isinstance(value, list):
            renamed[key] = [_renamed_row(word, names) for word in value]
        elif name is None or key not in ("speaker", "speaker_confidence", "diarized_speaker"):
            renamed[key] = value
        elif key == "speaker":
            renamed[key] = name
            renamed |= {} if probability is None else {"speaker_confidence": probability}
            renamed["diarized_speaker"] = value
    return renamed
