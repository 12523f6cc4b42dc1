"""Simulated meetings of people whom the encoder `small` never heard, to set up ``link`` with.

Usage: ``python benchmarks/links_meetings.py PACKED OUT``. PACKED is what
``recipes/small_encoder/pack.py`` wrote; only its held-out speakers are heard. OUT receives ``wav``,
``TextGrid`` (RTTM) and ``people.csv``, as the corpus beside spk has them.

Each series is a room with its people, who meet two or three times, each time with another
microphone, other places and another noise, everybody with some 20 s of speech that no other meeting
has. In the last sessions of each corpus people of earlier series meet in a new room. One id in each
third series is given to another person in its last session.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import fftconvolve, firwin2

from spk.common.counts import counted

RATE = 16000
SEED = 5
SPOKEN = 20.0  # s of each person in each session
TURN = (2.0, 6.0)  # s
PAUSE = 0.3  # s between turns
SNR = (15.0, 30.0)  # dB
DECAY = (0.2, 0.6)  # s until a room's sound is 60 dB softer
ACCENT = 6.0  # dB, of a microphone's bands
# corpus, people of a series, its sessions, how many series, and people of the mixed meeting
SERIES = (
    ("speechocean762", 5, 2, 6, 5),
    ("arabic_speech_commands", 6, 3, 1, 0),
    ("dspspeech20", 4, 3, 1, 0),
)


def room_response(rng: np.random.Generator, decay: float) -> np.ndarray:
    """Return the impulse response from one place in a room to the microphone."""
    seconds = np.arange(round(decay * RATE)) / RATE
    tail = rng.normal(size=len(seconds)) * 10 ** (-3 * seconds / decay)
    tail *= 10 ** (-rng.uniform(0, 6) / 20) / np.linalg.norm(tail)
    tail[0] = 1.0
    return tail


def microphone(rng: np.random.Generator) -> np.ndarray:
    """Return the filter of a microphone: bands up to `ACCENT` dB louder or softer."""
    bands = np.linspace(0, RATE / 2, 9)
    return firwin2(255, bands, 10 ** (rng.uniform(-ACCENT, ACCENT, len(bands)) / 20), fs=RATE)


class Speech:
    """The speech of each person, of which every second is used once."""

    def __init__(self, packed: Path) -> None:
        with open(packed / "speakers.csv", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if row["held_out"] == "1"]
        self.packed, self.begun = packed, dict.fromkeys((r["speaker"] for r in rows), 0.0)
        self.people: dict[str, list[str]] = {}
        for row in sorted(rows, key=lambda row: -float(row["seconds"])):
            self.people.setdefault(row["corpus"], []).append(row["speaker"])

    def turn(self, person: str, seconds: float) -> np.ndarray:
        """Return the next seconds of a person; fewer, or none, where there is no more."""
        first = round(self.begun[person] * RATE)
        self.begun[person] += seconds
        wave, _ = soundfile.read(self.packed / f"{person}.ogg", dtype="float64")
        return wave[first : first + round(seconds * RATE)]


def simulate(
    session: str, ids: dict[str, str], speech: Speech, rng: np.random.Generator, out: Path
) -> None:
    """Write a session's recording and RTTM; `ids` says who is behind each id."""
    decay, device = rng.uniform(*DECAY), microphone(rng)
    places = {name: room_response(rng, decay) for name in ids}
    left = dict.fromkeys(ids, SPOKEN)
    turns, parts, clock = [], [], 0.0
    while any(seconds > 0 for seconds in left.values()):
        name = str(rng.choice([name for name, seconds in left.items() if seconds > 0]))
        wave = speech.turn(ids[name], float(np.round(rng.uniform(*TURN), 3)))
        left[name] -= len(wave) / RATE if len(wave) > RATE else np.inf
        if len(wave) > RATE:
            heard = fftconvolve(fftconvolve(wave, places[name]), device)[: len(wave)]
            parts += [heard / (heard.std() + 1e-9), np.zeros(round(PAUSE * RATE))]
            turns.append((name, clock, len(wave) / RATE))
            clock += len(wave) / RATE + PAUSE
    whole = np.concatenate(parts)
    whole += rng.normal(size=len(whole)) * 10 ** (-rng.uniform(*SNR) / 20)
    whole *= 0.1
    soundfile.write(out / "wav" / f"{session}.flac", np.clip(whole, -1, 1), RATE)
    lines = [
        f"SPEAKER {session} 1 {start:.4f} {seconds:.4f} <NA> <NA> {name} <NA> <NA>\n"
        for name, start, seconds in turns
    ]
    (out / "TextGrid" / f"{session}.rttm").write_text("".join(lines))


def meetings_of(speech: Speech) -> list[tuple[str, dict[str, str]]]:
    """Return each session's name and who is behind each of its ids."""
    made, date = [], 20980101
    for corpus, size, sessions, count, mixed in SERIES:
        people = speech.people[corpus]
        groups = [people[i * size : (i + 1) * size] for i in range(count)]
        for number, group in enumerate(groups):
            for session in range(sessions):
                present = list(group)
                if session == sessions - 1 and number % 3 == 0 and count > 1:
                    present[0] = people[count * size + number // 3]  # somebody else has this id
                ids = {f"{k + 1:03d}-M": person for k, person in enumerate(present)}
                made.append((f"{date + number}_M_R00{number + 1}S0{session + 1}C01", ids))
        for number in range(size if mixed else 0):
            present = [group[number] for group in groups[number % 2 :: 2]]
            ids = {f"{k + 1:03d}-M": person for k, person in enumerate(present)}
            made.append((f"{date + 50 + number}_L_R009S01C01", ids))
        date += 100
    return made


def main(packed: Path, out: Path) -> None:
    """Write all meetings and who is who."""
    for name in ("wav", "TextGrid"):
        (out / name).mkdir(parents=True, exist_ok=True)
    speech, rng = Speech(packed), np.random.default_rng(SEED)
    rows = []
    for session, ids in meetings_of(speech):
        simulate(session, ids, speech, rng, out)
        rows += [(session, name, person) for name, person in ids.items()]
    lines = [",".join(row) + "\n" for row in (("session", "speaker", "person"), *rows)]
    (out / "people.csv").write_text("".join(lines))
    people = {person for _, _, person in rows}
    sessions = counted(len({row[0] for row in rows}), "session")
    print(f"{counted(len(rows), 'speaker')} in {sessions}, {len(people)} people")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Simulated meetings to set up link with.")
    parser.add_argument("packed", type=Path)
    parser.add_argument("out", type=Path)
    main(**vars(parser.parse_args()))
