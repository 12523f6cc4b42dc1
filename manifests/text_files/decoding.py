"""Decode text files: encodings, line ends, and files that are not text at all.

UTF-8 (with or without a byte order mark) and UTF-16 are read. Any other encoding is refused with
the command that converts it, since bytes alone cannot reliably tell GBK from Latin-1 and a wrong
guess would change names. Files that are not text are identified by their first bytes, and the error
says what to do with them.
"""

from __future__ import annotations

import codecs
import re
import shlex
from pathlib import Path

from ...common.errors import InputError

PRAAT_TEXT = "open it in Praat, and choose Save > Save as text file..."
RECORDING = "name the annotation here and the recordings' folder with --audio-root"
MAGIC = (  # first bytes, kind of file, what to do
    (b"RIFF", "a recording (WAV)", RECORDING),
    (b"RF64", "a recording (WAV)", RECORDING),
    (b"fLaC", "a recording (FLAC)", RECORDING),
    (b"OggS", "a recording (Ogg)", RECORDING),
    (b"ID3", "a recording (MP3)", RECORDING),
    (b"\xff\xfb", "a recording (MP3)", RECORDING),
    (b"ooBinaryFile", "a binary file of Praat (ooBinaryFile)", PRAAT_TEXT),
    (b"PAR1", "a Parquet table", "give it the suffix .parquet"),
    (b"PK\x03\x04", "a spreadsheet or an archive (.xlsx, .ods, .zip)", "save it as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet (.xls)", "save it as CSV (UTF-8)"),
    (b"\x1f\x8b", "compressed (gzip)", "unpack it with gunzip"),
    (b"%PDF", "a PDF", "take the text file that it was made of"),
    (b"\x89HDF", "an HDF5 file", "name a text file"),
)
HIGH = re.compile(rb"[\x80-\xff]+")


def read_text(path: Path) -> str:
    r"""Read a UTF-8 text file, or UTF-16 with a byte order mark or with every other byte 0.

    Line ends become ``\n``, including the bare ``\r`` of files that have no ``\n``.

    Raises
    ------
    InputError
        The encoding is neither, it is another kind of file, or it cannot be opened.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise InputError(
            f"{path}: cannot be read ({problem.strerror}), expected a text file; correct or "
            "delete it"
        ) from None
    return decode(data, path)


def decode(data: bytes, path: str | Path) -> str:
    """Return `data` as text, as `read_text` does; `path` is for messages."""
    for start, name, repair in MAGIC:
        if data.startswith(start):
            raise InputError(f"{path}: is {name}, expected a text file; {repair}")
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as problem:
        raise InputError(
            f"{path}: byte {problem.start} is not {'UTF-8' if '8' in encoding else 'UTF-16'}, "
            f"expected UTF-8 or UTF-16 text; {_conversion(data, path)}"
        ) from None
    return text.replace("\r\n", "\n") if "\n" in text else text.replace("\r", "\n")


def _encoding(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if data[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if data[:1] == b"\0" else "utf-8-sig"


def _conversion(data: bytes, path: str | Path) -> str:
    """Return a shell command that converts a legacy encoding to UTF-8, or other advice."""
    if b"\0" in data or len(HIGH.sub(b"", data)) < len(data) / 4:
        return "name a text file"
    pairs = all(len(run) % 2 == 0 for run in HIGH.findall(data))
    for encoding, likely in (("GB18030", pairs), ("CP1252", not pairs), ("ISO-8859-1", not pairs)):
        try:
            data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if likely:
            name = "GBK" if encoding == "GB18030" else encoding
            old, new = shlex.quote(f"{path}.{name.lower()}"), shlex.quote(str(path))
            command = f"mv {new} {old} && iconv -f {encoding} -t UTF-8 {old} > {new}"
            return f"it looks like {name}: {command}"
    return "convert the file to UTF-8"
