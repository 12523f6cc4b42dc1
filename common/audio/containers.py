"""Audio files by name and by content: which are recordings, which codecs seek to the sample.

libsndfile decodes the containers of `SUFFIXES`. For other formats, the error says what the file is
and which command converts it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from ..counts import counted
from ..errors import InputError
from ..nearby import folder_with

# Every container of libsndfile except headerless RAW, whose rate and channels are unknown.
SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".amb", ".rf64", ".w64", ".wv", ".flac", ".fla", ".ogg", ".oga"),
    *(".opus", ".mp3", ".mp2", ".mp1", ".mpga", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"),
    *(".sph", ".nist", ".voc", ".avr", ".htk", ".iff", ".svx", ".8svx", ".paf", ".fap", ".pvf"),
    *(".sf", ".ircam", ".sd2", ".sds", ".mpc2k", ".wve", ".xi"),
)
# These may also hold something else: taken as a recording only if no other file has that name.
UNSURE = (".mat", ".mat4", ".mat5", ".snd2", ".prc")
# Common recording formats that libsndfile does not decode.
UNREAD = (
    *(".m4a", ".mp4", ".m4b", ".m4v", ".aac", ".adts", ".wma", ".wmv", ".asf", ".mov", ".qt"),
    *(".mkv", ".mka", ".webm", ".weba", ".amr", ".3gp", ".3g2", ".ac3", ".eac3", ".dts", ".ape"),
    *(".tta", ".mpc", ".spx", ".avi", ".flv", ".ra", ".rm", ".dsf", ".dff", ".shn", ".alac"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".tak", ".shorten"),
)

# Seeks are exact in these, as measured by benchmarks/seeking.py; no other file is read by seeking.
EXACT = {
    "AIFF": "PCM_S8 PCM_16 PCM_24 PCM_32 PCM_U8 FLOAT DOUBLE ULAW ALAW IMA_ADPCM",
    "AU": "PCM_S8 PCM_16 PCM_24 PCM_32 FLOAT DOUBLE ULAW ALAW",
    "WAV": "PCM_16 PCM_24 PCM_32 PCM_U8 FLOAT DOUBLE ULAW ALAW IMA_ADPCM MS_ADPCM",
    "AVR": "PCM_S8 PCM_16 PCM_U8",
    "CAF": "PCM_S8 PCM_16 PCM_24 PCM_32 FLOAT DOUBLE ULAW ALAW ALAC_16 ALAC_20 ALAC_24 ALAC_32",
    "FLAC": "PCM_S8 PCM_16 PCM_24",
    "HTK": "PCM_16",
    "SVX": "PCM_S8 PCM_16",
    "MAT4": "PCM_16 PCM_32 FLOAT DOUBLE",
    "MAT5": "PCM_16 PCM_32 PCM_U8 FLOAT DOUBLE",
    "MPC2K": "PCM_16",
    "PAF": "PCM_S8 PCM_16",
    "PVF": "PCM_S8 PCM_16 PCM_32",
    "RF64": "PCM_16 PCM_24 PCM_32 PCM_U8 FLOAT DOUBLE ULAW ALAW",
    "SD2": "PCM_S8 PCM_16 PCM_24 PCM_32",
    "IRCAM": "PCM_16 PCM_32 FLOAT ULAW ALAW",
    "VOC": "PCM_16 PCM_U8 ULAW ALAW",
    "W64": "PCM_16 PCM_24 PCM_32 PCM_U8 FLOAT DOUBLE ULAW ALAW IMA_ADPCM MS_ADPCM",
    "NIST": "PCM_S8 PCM_16 PCM_24 PCM_32 ULAW ALAW",
    "WAVEX": "PCM_16 PCM_24 PCM_32 PCM_U8 FLOAT DOUBLE ULAW ALAW",
    "WVE": "ALAW",
}
# Decoded from the start, but the header's length is right: Ogg counts samples in every page.
TRUE_LENGTH = ("VORBIS", "OPUS")

_SIGNATURES = (  # position, bytes, what a file with them is
    (4, b"ftyp", "MP4 (m4a)"),
    (0, bytes.fromhex("3026b2758e66cf11"), "ASF (wma)"),
    (0, bytes.fromhex("1a45dfa3"), "Matroska or WebM"),
    (0, b"#!AMR", "AMR"),
    (0, b"wvpk", "WavPack"),
    (0, b"MAC ", "Monkey's Audio"),
    (0, b"FLV\x01", "Flash video"),
    (0, b"ajkg", "Shorten"),
    (0, b"\xff\xf1", "AAC (ADTS)"),
    (0, b"\xff\xf9", "AAC (ADTS)"),
    (0, b"ADIF", "AAC (ADIF)"),
    (0, b".RMF", "RealMedia"),
    (0, b"\x0b\x77", "AC-3"),
    (0, b"DSD ", "DSD"),
    (0, b"MPCK", "Musepack"),
    (0, b"MP+", "Musepack"),
    (0, b"TTA1", "True Audio"),
)


def is_exact(container: str, codec: str) -> bool:
    """Return whether libsndfile's seek in such a file lands on the sample asked for."""
    return codec in EXACT.get(container, "").split()


def reason_unread(path: str) -> str:
    """Return why libsndfile cannot read a file, and the repair: ``WHAT; DO``."""
    try:
        with open(path, "rb") as file:
            head = file.read(2048)
    except OSError as problem:
        return f"cannot be read ({problem.strerror}), expected audio; correct the audio folder"
    if not head:
        return "is empty, 0 bytes, expected audio; copy the recording again"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs, expected audio; type `git lfs pull` in its folder"
    if b"shorten" in head[:1024] and head.startswith(b"NIST_1A"):
        target = shlex.quote(str(Path(path).with_suffix(".wav")))
        return (
            "holds Shorten in NIST SPHERE, expected audio that libsndfile decodes; convert it: "
            f"`sph2pipe -f wav {shlex.quote(path)} {target}`"
        )
    kind = next((k for at, sign, k in _SIGNATURES if head[at:].startswith(sign)), None)
    if kind or Path(path).suffix.lower() in UNREAD:
        content = f"holds {kind}" if kind else f"is a {Path(path).suffix.lower()} file"
        named = Path(path).with_suffix(".wav").name if Path(path).suffix.lower() in UNREAD else ""
        then = f" and name {named} instead" if named else ""
        return f"{content}, expected audio that libsndfile decodes; {conversion(path)}{then}"
    return ""


def conversion(path: str) -> str:
    """Return the shell command that converts a file to a recording that can be read."""
    suffix = Path(path).suffix.lower()
    if suffix in UNREAD:
        source, target, before = path, str(Path(path).with_suffix(".wav")), ""
    else:  # tables refer to its name, so the copy takes it over
        source, target = f"{path}.original", path if suffix in (".wav", ".flac") else f"{path}.wav"
        before = f"mv {shlex.quote(path)} {shlex.quote(source)} && "
    return f"convert it: `{before}ffmpeg -i {shlex.quote(source)} -ar 16000 {shlex.quote(target)}`"


def add_header(path: str) -> str:
    """Return the command that adds a header to headerless samples."""
    target = shlex.quote(str(Path(path).with_suffix(".wav")))
    return (
        "if it holds 16 bits, mono, at 16 kHz, give it a header: "
        f"`ffmpeg -f s16le -ar 16000 -ac 1 -i {shlex.quote(path)} {target}`"
    )


def check_files_exist(
    files: Iterable[str], audio_root: str | Path, *, all_needed: bool = True
) -> None:
    """Raise `InputError` if recordings are missing or, without `all_needed`, if all are missing.

    The repair names the folder that contains them, if it is nearby.
    """
    paths = sorted(set(files))
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing and (all_needed or len(missing) == len(paths)):
        name = os.path.relpath(missing[0], audio_root)
        folder = None if name.startswith(os.pardir) else folder_with(name, Path(audio_root))
        raise InputError(
            f"{audio_root}: {counted(len(missing), 'recording', 'is', of=len(paths))} missing, "
            f"first {missing[0]!r}; name the folder of the recordings with --audio-root"
            + (f" {shlex.quote(str(folder))}" if folder else "")
        )
