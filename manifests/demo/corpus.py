"""A synthetic corpus in AISHELL-4's layout, to try every command on: voices, overlap, a room.

::

    OUT/wav/20990301_S_R001S01C01.flac       16 kHz, 16 bits; the last session has all channels
    OUT/TextGrid/20990301_S_R001S01C01.rttm  grouped by speaker, not sorted by time
    OUT/TextGrid/20990301_S_R001S01C01.TextGrid
    OUT/people.csv                           session, speaker, person: who is who across sessions

Sessions fall into two series; all sessions of a series have the same people. Every session opens
with a roll call, then people take turns of 0.3 to 8 s, sometimes overlapping. Everything is drawn
from the seed: the same bytes on every run with the same versions of NumPy and libsndfile. The
voices are synthetic, so scores on them show that the programs work, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...common.counts import counted
from ...common.errors import InputError
from ...common.files import atomic_write
from ..cutting.recording import write_audio
from ..table import sample_span
from .voices import RATE, Voice, draw_voices, speak

SERIES = ("20990301_S_R001", "20990302_M_R002")
SEXES = "MFMMFMFFM"  # of speakers 001 to 009
INTO = 0.25  # share of turns that begin before the previous one ends
ASIDES = 0.08  # share of turns during which somebody else says a word
LEVEL = 0.04  # RMS of speech at an average seat, relative to full scale
NOISE = 0.0005  # RMS of the room's noise, relative to full scale
REFLECTIONS = 6  # reflections of a voice from the room's walls
RADIUS = 0.05  # m, of the circular array
SOUND = 343.0  # m/s
MARKS = ("<sil>", "<$>", "<%>", "<#>", "<_>")  # non-lexical, as AISHELL-4's transcripts have them
MARKED = 0.1  # share of intervals with such a mark


@dataclass
class _Turn:
    start: float  # s, to 0.1 ms
    seconds: float
    person: int
    text: str = ""


def demo(
    out: str | Path,
    *,
    sessions: int = 4,
    minutes: float = 5.0,
    speakers: int = 5,
    channels: int = 8,
    seed: int = 0,
) -> list[str]:
    """Write the corpus; see the module for its files.

    Parameters
    ----------
    out
        Folder; an earlier demo there is overwritten (by the command only with --overwrite).
    sessions
        Number of meetings, 1 to 20; the first half form one series, the rest another.
    minutes
        Length of each, 1 to 60.
    speakers
        People in each, 2 to 9.
    channels
        Channels of the last session's recording, 1 to 16; the others are mono.
    seed
        Random seed, >= 0.

    Returns
    -------
    list of str
        The sessions' names.

    Raises
    ------
    InputError
        A number is out of range, or `out` contains other recordings or cannot be written.
    """
    _check(sessions=(sessions, 1, 20), minutes=(minutes, 1, 60), speakers=(speakers, 2, 9))
    _check(channels=(channels, 1, 16), seed=(seed, 0, 2**32 - 1))
    half = (sessions + 1) // 2
    places = [(index // half, index % half + 1) for index in range(sessions)]
    names = [f"{SERIES[series]}S{number:02d}C01" for series, number in places]
    out = Path(out)
    _check_only_demo_files(out / "wav", names)
    people = ["session,speaker,person"]
    for index, (name, (series, number)) in enumerate(zip(names, places, strict=True)):
        voices = draw_voices(np.random.default_rng([seed, series]), SEXES[:speakers])
        rng = np.random.default_rng([seed, series, number])
        _write_session(
            out, name, voices, rng, minutes * 60, channels * (index == sessions - 1) or 1
        )
        people += [
            f"{name},{_speaker(voices, person)},person{series * 10 + person + 1:02d}"
            for person in range(speakers)
        ]
    atomic_write(out / "people.csv", ("\n".join(people) + "\n").encode())
    return names


def _check(**ranges: tuple[float, float, float]) -> None:
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise InputError(f"{name}: is {value}, expected {low} to {high}; pass another --{name}")


def _check_only_demo_files(wav: Path, names: list[str]) -> None:
    strange = sorted(file.name for file in wav.glob("*") if file.stem not in names)
    strange = [name for name in strange if not name.startswith(".")]
    if strange:
        raise InputError(
            f"{wav}: holds {counted(len(strange), 'file')} not of this demo, first "
            f"{strange[0]!r}; name another folder"
        )


def _write_session(
    out: Path,
    name: str,
    voices: list[Voice],
    rng: np.random.Generator,
    seconds: float,
    channels: int,
) -> None:
    turns = _conversation(rng, len(voices), seconds)
    audio = _recording(voices, turns, rng, seconds, channels)
    write_audio(out / "wav" / f"{name}.flac", audio)
    labels = [_speaker(voices, person) for person in range(len(voices))]
    annotation = out / "TextGrid" / name
    atomic_write(f"{annotation}.rttm", _rttm(name, turns, labels).encode())
    atomic_write(f"{annotation}.TextGrid", _textgrid(turns, labels, seconds, rng).encode())


def _speaker(voices: list[Voice], person: int) -> str:
    return f"{person + 1:03d}-{voices[person].sex}"


def _conversation(rng: np.random.Generator, people: int, seconds: float) -> list[_Turn]:
    """Draw who speaks when, in order of time; nobody speaks over themselves."""
    turns, now = [], 1.5
    for person in range(people):  # the roll call
        turns.append(_turn(now, rng.uniform(1.0, 2.2), person))
        now = _end(turns[-1]) + rng.uniform(0.6, 1.6)
    free = [_end(turn) + 0.2 for turn in turns]  # s, from when on a person may speak again
    eagerness = rng.uniform(0.7, 1.3, people)
    while True:
        others = eagerness * np.where(np.arange(people) == turns[-1].person, 0.3, 1.0)
        person = int(rng.choice(people, p=others / others.sum()))
        length = float(np.clip(rng.lognormal(np.log(1.9), 0.6), 0.3, 8.0))
        into = rng.uniform(0.2, 1.2) if rng.random() < INTO else -0.05 - rng.exponential(0.3)
        start = max(now - into, free[person])
        if start + length > seconds - 0.5:
            return turns
        turns.append(_turn(start, length, person))
        now = max(now, start + length)
        free[person] = start + length + 0.15
        if rng.random() < ASIDES and length > 1.5:
            aside = int((person + rng.integers(1, people)) % people)
            word = start + rng.uniform(0.3, length - 0.8)
            if word > free[aside]:
                turns.append(_turn(word, rng.uniform(0.3, 0.7), aside))
                free[aside] = _end(turns[-1]) + 0.15


def _turn(start: float, length: float, person: int) -> _Turn:
    return _Turn(round(start, 4), round(length, 4), person)


def _end(turn: _Turn) -> float:
    return turn.start + turn.seconds


def _recording(
    voices: list[Voice],
    turns: list[_Turn],
    rng: np.random.Generator,
    seconds: float,
    channels: int,
) -> np.ndarray:
    """Speak every turn (setting its text) in the room; return (samples, channels) int16."""
    samples = round(seconds * RATE)
    room = NOISE * rng.standard_normal((channels, samples + RATE), np.float32)
    room[:, 1:] += room[:, :-1]
    seats = [_seat(rng, channels) for _ in voices]
    for turn in turns:
        first, stop = sample_span(turn.start, _end(turn), RATE)
        signal, turn.text = speak(voices[turn.person], stop - first, rng)
        signal *= np.float32(LEVEL * 10 ** (rng.normal(0, 1.5) / 20))
        for delays, gain in seats[turn.person]:
            for channel, delay in enumerate(delays):
                room[channel, first + delay : stop + delay] += gain * signal
    peak = 32767
    return np.clip(np.rint(room[:, :samples].T * peak), -peak, peak).astype(np.int16)


def _seat(rng: np.random.Generator, channels: int) -> list[tuple[np.ndarray, np.float32]]:
    """Draw a seat: delays (channels,) in samples and gain of the direct path and reflections."""
    array = 2 * np.pi * np.arange(channels) / channels
    paths = []
    for index in range(1 + REFLECTIONS):
        late = 0.0 if index == 0 else rng.uniform(0.003, 0.045)  # s after the direct path
        nearer = RADIUS * (1 - np.cos(array - rng.uniform(0, 2 * np.pi)))
        delays = np.rint((late + nearer / SOUND) * RATE).astype(int)
        gain = rng.uniform(0.7, 1.3) if index == 0 else rng.normal(0, 0.3) * np.exp(-late / 0.02)
        paths.append((delays, np.float32(gain)))
    return paths


def _rttm(name: str, turns: list[_Turn], labels: list[str]) -> str:
    return "".join(
        f"SPEAKER {name} 1 {turn.start:.4f} {turn.seconds:.4f} <NA> <NA> {label} <NA> <NA>\n"
        for person, label in enumerate(labels)
        for turn in sorted(turns, key=lambda turn: turn.start)
        if turn.person == person
    )


def _textgrid(
    turns: list[_Turn], labels: list[str], seconds: float, rng: np.random.Generator
) -> str:
    """Return the long text form: a tier a speaker, silence as empty intervals."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0"]
    lines += [f"xmax = {seconds:g}", "tiers? <exists>", f"size = {len(labels)}", "item []:"]
    for person, label in enumerate(labels):
        intervals = _intervals([turn for turn in turns if turn.person == person], seconds, rng)
        lines += [f"    item [{person + 1}]:", '        class = "IntervalTier"']
        lines += [f'        name = "{label}"', "        xmin = 0", f"        xmax = {seconds:g}"]
        lines.append(f"        intervals: size = {len(intervals)}")
        for index, (start, end, text) in enumerate(intervals, start=1):
            lines += [f"        intervals [{index}]:", f"            xmin = {start}"]
            lines += [f"            xmax = {end}", f'            text = "{text}"']
    return "\n".join(lines) + "\n"


def _intervals(
    turns: list[_Turn], seconds: float, rng: np.random.Generator
) -> list[tuple[str, str, str]]:
    """Return begin, end and text of one speaker's intervals, without a gap from 0 to the end."""
    intervals, now = [], "0"
    for turn in sorted(turns, key=lambda turn: turn.start):
        begin, end = f"{turn.start:.4f}", f"{_end(turn):.4f}"
        silence = "<sil>" if rng.random() < MARKED else ""
        mark = MARKS[rng.integers(len(MARKS))] if rng.random() < MARKED else ""
        intervals += [(now, begin, silence), (begin, end, turn.text + mark)]
        now = end
    return [*intervals, (now, f"{seconds:g}", "")]
