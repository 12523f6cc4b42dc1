"""The true length of audio files whose header states less.

Programs that stream write 0 for a length that they do not know yet, and 32-bit lengths wrap round
at 4 GB: such a RIFF file goes on after its ``data`` chunk with bytes that are not a chunk. An MPEG
file without a table of frames states no length, and libsndfile stops decoding at the length that it
guesses from the first frame's bit rate.
"""

from __future__ import annotations

import os
from typing import BinaryIO

JUNK = 1.0  # s of audio; anything shorter after a RIFF's samples may be a tag or padding
KILOBITS = {  # (MPEG 1, layer); for versions other than MPEG 1, layer 2 stands for 2 and 3
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, 0),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 0),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, 0),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}


def unannounced_seconds(path: str, announced: float) -> float:
    """Return how many s of audio a RIFF or MPEG file holds, if its header states less.

    Parameters
    ----------
    announced
        Length by the header, s.

    Returns
    -------
    float
        The length in s by the file's content; 0 if the header is right or the file of another kind.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            seconds = _riff_seconds(file, size) or _mpeg_seconds(file, size)
    except OSError:
        return 0.0
    return seconds if seconds > announced + JUNK or (seconds and not announced) else 0.0


def _riff_seconds(file: BinaryIO, size: int) -> float:
    begin, length, per_second = _data_chunk(file, size)
    if not per_second or begin + length >= size or _are_chunks(file, begin + length, size):
        return 0.0
    return (size - begin) / per_second


def _data_chunk(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return position and stated length of a RIFF's samples, and bytes per s; 0, 0, 0 if none."""
    if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
        return 0, 0, 0
    place, per_second = 12, 0
    while place + 8 <= size:
        file.seek(place)
        name, length = file.read(4), int.from_bytes(file.read(4), "little")
        if name == b"fmt ":
            per_second = int.from_bytes(file.read(12)[8:12], "little")
        if name == b"data":
            return place + 8, length, per_second
        place += 8 + length + length % 2
    return 0, 0, 0


def _are_chunks(file: BinaryIO, place: int, size: int) -> bool:
    """Return whether only RIFF chunks, or only zeros, follow from `place` to the end of the file.

    A file that was padded to whole disk blocks ends in zeros.
    """
    file.seek(place)
    rest = size - place
    if rest < 1 << 16 and not any(file.read(rest)):
        return True
    for start in (place, place + place % 2):
        at = start
        while at + 8 <= size:
            file.seek(at)
            name, length = file.read(4), int.from_bytes(file.read(4), "little")
            if not all(0x20 <= byte < 0x7F for byte in name) or at + 8 + length > size:
                break
            at += 8 + length + length % 2
        if at > start and size - at < 8:
            return True
    return False


def _mpeg_seconds(file: BinaryIO, size: int) -> float:
    """Return the length (s) of consecutive MPEG audio frames; 0 if there are none."""
    file.seek(0)
    head = file.read(10)
    place = 0
    if head[:3] == b"ID3":
        place = 10 + sum((head[6 + i] & 0x7F) << (21 - 7 * i) for i in range(4))
    seconds = 0.0
    while place + 4 <= size:
        file.seek(place)
        length, duration = _frame(file.read(4))
        if not length:
            break
        seconds += duration
        place += length
    return seconds


def _frame(head: bytes) -> tuple[int, float]:
    """Return the bytes and s of an MPEG frame with this header; 0, 0 if invalid (ISO 11172-3)."""
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    place, rate = head[2] >> 4, head[2] >> 2 & 3
    if head[0] != 0xFF or head[1] < 0xE0 or version == 1 or layer == 4 or rate == 3:
        return 0, 0.0
    first = version == 3
    kilobits = KILOBITS[first, layer if first or layer == 1 else 2][place]
    hertz = (44100, 48000, 32000)[rate] >> (0, 1, 2)[(3, 2, 0).index(version)]
    samples = 384 if layer == 1 else 576 if layer == 3 and not first else 1152
    slot = 4 if layer == 1 else 1
    length = (samples // 8 // slot * kilobits * 1000 // hertz + (head[2] >> 1 & 1)) * slot
    return (length, samples / hertz) if kilobits else (0, 0.0)
