"""The formats by name: their suffixes, readers and writers.

`read_turns` determines a file's format by its suffix, or by how its text begins if the suffix
belongs to no format or to several (``.txt``, ``.json``). `write_turns` writes a single file if the
path has the format's suffix, and otherwise a folder with a file per session; Kaldi is always one
folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...common.errors import InputError, check_choice
from ...common.files import list_files
from ...common.log import log
from ..text_files.kinds import NEMO
from . import eaf, kaldi, lhotse, nemo, rttm, segmented_csv, srt, textgrid, txt, vtt, whisperx
from .turns import Annotation, Turn
from .writing import by_session, turns_of, without_blanks

if TYPE_CHECKING:
    import pandas as pd

Audio = Mapping[str, Path]


class Format(NamedTuple):
    """A format of annotations.

    `suffixes` are in lower case, the one used for writing first; empty if the format is a folder.
    """

    suffixes: tuple[str, ...]
    read: Callable[..., Annotation]
    write: Callable[[Sequence[Turn], Path, Audio], None]
    one_session: bool = True  # in each file
    blanks: bool = True  # allowed in names; otherwise they become "_"
    shared: tuple[str, ...] = ()  # suffixes of its files that belong to another format


def _without_audio(write: Callable[[Sequence[Turn], Path], None]) -> Callable[..., None]:
    return lambda turns, path, audio: write(turns, path)


FORMATS = {
    "rttm": Format(
        (".rttm",), rttm.read_rttm, _without_audio(rttm.write_rttm), False, blanks=False
    ),
    "whisperx": Format((".json",), whisperx.read_whisperx, _without_audio(whisperx.write_whisperx)),
    "seglst": Format(
        (".seglst.json",),
        whisperx.read_whisperx,
        _without_audio(whisperx.write_seglst),
        one_session=False,
    ),
    "textgrid": Format(
        (".textgrid",), textgrid.read_textgrid, _without_audio(textgrid.write_textgrid)
    ),
    "srt": Format((".srt",), srt.read_srt, _without_audio(srt.write_srt)),
    "vtt": Format((".vtt",), vtt.read_vtt, _without_audio(vtt.write_vtt)),
    "txt": Format((".txt",), txt.read_txt, _without_audio(txt.write_txt)),
    "eaf": Format((".eaf",), eaf.read_eaf, _without_audio(eaf.write_eaf)),
    "lhotse": Format(
        (".jsonl.gz", ".jsonl", ".json.gz"),
        lhotse.read_lhotse,
        lhotse.write_lhotse,
        one_session=False,
    ),
    "nemo": Format(
        (".nemo.json",), nemo.read_nemo, nemo.write_nemo, False, shared=(".json", ".jsonl")
    ),
    "kaldi": Format((), kaldi.read_kaldi, kaldi.write_kaldi, False, blanks=False),
    "csv": Format(
        (".csv",),
        segmented_csv.read_segmented_csv,
        segmented_csv.write_segmented_csv,
        one_session=False,
    ),
}
LISTING = ("kaldi", "nemo")  # formats that list their recordings
FOLDERS = ("lhotse", "kaldi")  # formats that put all sessions into one folder
CONTENT = (  # how a text begins, and its format
    (r"(?:;;[^\n]*\n|\s)*(?:SPEAKER|SPKR-INFO)\s", "rttm"),
    (r"\s*WEBVTT", "vtt"),
    (r'\s*(?:File type\s*=\s*)?"?ooTextFile', "textgrid"),
    (r"(?s).{0,2000}<ANNOTATION_DOCUMENT", "eaf"),
    (r'(?s)\s*[\[{].{0,4000}"recording_id"', "lhotse"),
    (NEMO, "nemo"),
    (r"\s*[\[{]\s*[{\"\]}]", "whisperx"),
)
AMBIGUOUS = (".txt", ".json", ".jsonl")  # suffixes of several formats
HEAD = 4000  # bytes of a file that are read to determine its format


def read_turns(
    path: str | Path,
    format: str | None = None,  # noqa: A002
    *,
    audio_root: str | Path | None = None,
    skip_bad: bool = False,
) -> Annotation:
    """Read the turns of a file or folder in any of the formats.

    Parameters
    ----------
    path
        File, or folder that is searched recursively.
    format
        One of `FORMATS`; None: by suffix and content.
    audio_root
        Folder of the recordings, for formats whose turns may end where their recording does
        (Kaldi, NeMo); None: recordings are where the file lists them.
    skip_bad
        Drop bad turns and files, with a note each, instead of stopping at the first.

    Returns
    -------
    Annotation
        `turns` (session, speaker, start and end in seconds, ...) and `notes`.

    Raises
    ------
    InputError
        The format is unknown, the file cannot be read, or a turn is bad.

    Examples
    --------
    >>> import tempfile
    >>> line = "SPEAKER S1 1 0.5 2 <NA> <NA> Anna <NA> <NA>"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.rttm").write_text(line)
    ...     [turn[:4] for turn in read_turns(Path(folder, "a.rttm")).turns]
    [('S1', 'Anna', 0.5, 2.5)]
    """
    if format is not None:
        check_choice("format", format, tuple(FORMATS))
    name = format or _format_read(Path(path))
    places = {"audio_root": audio_root} if name in LISTING else {}
    return FORMATS[name].read(path, skip_bad=skip_bad, **places)


def write_turns(
    turns: pd.DataFrame,
    path: str | Path,
    format: str | None = None,  # noqa: A002
    *,
    audio: Audio | None = None,
) -> list[Path]:
    r"""Write turns in one of the formats.

    Parameters
    ----------
    turns
        Columns session, speaker, start, end (s), and optionally channel (index from 0) and text.
    path
        A file with the format's suffix, or a folder, in which each session gets a file.
    format
        One of `FORMATS`; None: by the suffix.
    audio
        Session -> recording, for formats that name it (lhotse, Kaldi, NeMo, CSV).

    Returns
    -------
    list of Path
        The files written; for a format that is a folder, the folder.

    Raises
    ------
    InputError
        The format is unknown or cannot hold several sessions in a file, a turn cannot be written,
        or the file cannot be written.

    Examples
    --------
    >>> import tempfile, pandas
    >>> turns = pandas.DataFrame({"session": ["S1"], "speaker": ["Anna Lee"]})
    >>> turns = turns.assign(start=0.5, end=2.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_turns(turns, Path(folder, "a.rttm"))
    ...     Path(folder, "a.rttm").read_text()
    'SPEAKER S1 1 0.500 2.000 <NA> <NA> Anna_Lee <NA> <NA>\n'
    """
    path = Path(path)
    name = format or _format_written(path)
    check_choice("format", name, tuple(FORMATS))
    spoken = turns_of(turns)
    if _is_file(path, name):
        _check_sessions(spoken, path, name)
        _tell_session(spoken, path, name)
        FORMATS[name].write(spoken, path, audio or {})
        return [path]
    if name in FOLDERS:
        FORMATS[name].write(spoken, path, audio or {})
        return [path]
    if not FORMATS[name].blanks:
        without_blanks(spoken, name)  # two sessions must not get the same file name
    files = []
    for session, part in by_session(spoken):
        files.append(path / f"{session}{written_suffix(name)}")
        FORMATS[name].write(part, files[-1], audio or {})
    return files


def written_suffix(name: str) -> str:
    """Return the suffix of a format's files, as its own programs write it."""
    return ".TextGrid" if name == "textgrid" else FORMATS[name].suffixes[0]


def _format_of(path: Path) -> str | None:
    """Return the format with the longest suffix that a path ends in."""
    suffixes = {suffix: name for name, form in FORMATS.items() for suffix in form.suffixes}
    ends = [suffix for suffix in suffixes if path.name.lower().endswith(suffix)]
    return suffixes[max(ends, key=len)] if ends else None


def _format_written(path: Path) -> str:
    name = _format_of(path)
    if name is None:
        raise InputError(
            f"{path}: suffix is {path.suffix!r}, expected one of {', '.join(_suffixes())}; name a "
            f"file with such a suffix, or pass --format, one of {', '.join(FORMATS)}"
        )
    return name


def _suffixes() -> list[str]:
    return [written_suffix(name) for name, form in FORMATS.items() if form.suffixes]


def _is_file(path: Path, name: str) -> bool:
    """Return whether a format is written to a path as one file; refuse another's suffix."""
    other = _format_of(path)
    if other is None or not FORMATS[name].suffixes:
        return False
    ends = path.name.lower().endswith(FORMATS[name].suffixes + FORMATS[name].shared)
    if not ends:
        raise InputError(
            f"{path}: suffix is {path.suffix!r}, expected {written_suffix(name)}, or none for a "
            "folder; rename it"
        )
    return True


def _check_sessions(turns: Sequence[Turn], path: Path, name: str) -> None:
    sessions = list(dict.fromkeys(turn.session for turn in turns))
    if FORMATS[name].one_session and len(sessions) > 1:
        raise InputError(
            f"{path}: holds one session, the turns are of {len(sessions)}, first {sessions[0]!r} "
            f"and {sessions[1]!r}, expected one; name a folder and pass --format {name}"
        )


def _tell_session(turns: Sequence[Turn], path: Path, name: str) -> None:
    """Log if a file's name, which alone gives the session in this format, differs from it."""
    read = path.name[: -len(path.suffix)]
    other = [turn.session for turn in turns if turn.session != read]
    if FORMATS[name].one_session and other:
        log(f"{path}: does not name its session, {other[0]!r}; it will be read as {read!r}")


def _format_read(path: Path) -> str:
    """Return the format of an existing file or folder."""
    if path.is_dir():
        return _format_of_folder(path)
    suffix = _format_of(path)
    if suffix is None or path.name.lower().endswith(AMBIGUOUS):
        return _format_of_content(path) or suffix or _format_written(path)
    return suffix


def _format_of_content(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return None  # the reader says why
    utf16 = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = head.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")
    return next((name for start, name in CONTENT if re.match(start, text)), None)


def _format_of_folder(path: Path) -> str:
    if any(file.name == kaldi.NEEDED for file in list_files(path, ("",))):
        return "kaldi"
    suffixes = sorted({f".{suffix.rpartition('.')[2]}" for suffix in _all_suffixes()})
    names = {_format_read(file) for file in list_files(path, tuple(suffixes))}
    if not names:
        raise InputError(
            f"{path}: holds no file of a known format, expected some with a suffix of "
            f"{', '.join(_suffixes())}; correct the path"
        )
    if len(names) > 1:
        raise InputError(
            f"{path}: holds files of {', '.join(sorted(names))}, expected those of one format; say "
            f"which, format=..., one of {', '.join(FORMATS)}"
        )
    return names.pop()


def _all_suffixes() -> list[str]:
    return [suffix for form in FORMATS.values() for suffix in form.suffixes]
