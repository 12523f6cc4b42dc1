"""Make the two-minute meeting of real voices that ships with spk.

    python sample.py VOICES PACKED OUT

VOICES is the folder of corpora that `pack.py` reads, PACKED what it wrote: only speakers held out
of training speak here. OUT then holds `sample.ogg`, `sample.rttm` and `LICENCE.txt`. The speech is
read English (LibriSpeech, CC BY 4.0), cut at its pauses; who speaks when is drawn, and the room,
one place a speaker, is simulated.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import soundfile

CORPUS = "librispeech"
RATE = 16000
SPEAKERS, SECONDS = 7, 120.0
SHORTEST, LONGEST = 1.3, 2.8  # s of a turn
FRAME = 320  # samples
PAUSE = 28.0  # dB under the loud frames
NOISE = 30.0  # dB under speech
SEED = 4

LICENCE = """\
The voices of this meeting are of LibriSpeech (Panayotov et al. 2015, openslr.org/12), which is
licensed under CC BY 4.0 (creativecommons.org/licenses/by/4.0). They were cut at pauses, put in
another order, and a room and its noise were added. Clips:

"""


def read_clips(voices, packed):
    """Return {speaker: (clip, wave)} of held-out speakers, the longest first."""
    with open(packed / "speakers.csv", newline="") as lines:
        rows = [r for r in csv.DictReader(lines) if r["corpus"] == CORPUS and r["held_out"] == "1"]
    rows.sort(key=lambda row: (-float(row["seconds"]), row["speaker"]))
    clips = {}
    with open(voices / CORPUS / "index.csv", newline="") as lines:
        names = {row["speaker"]: row for row in csv.DictReader(lines)}
    for row in rows[:SPEAKERS]:
        name, clip = row["speaker"], names[row["speaker"]]
        wave, rate = soundfile.read(voices / CORPUS / f"{name}.ogg", dtype="float64")
        if rate != RATE:
            raise SystemExit(f"{name}.ogg: rate is {rate}, expected {RATE} Hz")
        first, last = (round(float(clip[key]) * RATE) for key in ("start", "end"))
        clips[name] = clip["clip"], wave[first:last]
    return clips


def turns_of(wave):
    """Return pieces of a wave, cut in its pauses, `SHORTEST` to `LONGEST` s each."""
    count = len(wave) // FRAME
    level = 10 * np.log10(wave[: count * FRAME].reshape(count, FRAME).var(1) + 1e-9)
    loud = level > np.percentile(level, 95) - PAUSE
    pieces, first = [], int(np.argmax(loud))
    while True:
        low, high = (first + round(s * RATE / FRAME) for s in (SHORTEST, LONGEST))
        if low >= count:
            return pieces
        # the quietest 100 ms within reach, the earlier of equals
        quiet = np.convolve(level[low : high + 5], np.ones(5) / 5, "valid")
        last = min(count, low + int(quiet.argmin()) + 2) if len(quiet) else count
        end = last - int(np.argmax(loud[first:last][::-1]))
        if (end - first) * FRAME >= SHORTEST * RATE * 0.8:
            pieces.append(wave[first * FRAME : end * FRAME])
        rest = np.flatnonzero(loud[last:])
        if not len(rest):
            return pieces
        first = last + int(rest[0])


def in_turn(pieces, rng):
    """Return (speaker, piece) in an order in which nobody follows themselves."""
    waiting = {name: list(parts) for name, parts in pieces.items()}
    order, before = [], None
    for name, parts in waiting.items():  # a roll call
        order.append((name, parts.pop(0)))
        before = name
    while any(waiting.values()):
        names = [n for n, parts in waiting.items() if parts and n != before]
        if not names:
            break
        weight = np.array([len(waiting[n]) for n in names], float) ** 2
        before = names[rng.choice(len(names), p=weight / weight.sum())]
        order.append((before, waiting[before].pop(0)))
    return order


def place(rng):
    """Return a place's impulse response: the direct sound and what the walls give back."""
    time = np.arange(round(0.3 * RATE)) / RATE
    tail = rng.standard_normal(len(time)) * np.exp(-6.9 * time / 0.35) * (time > 0.004)
    response = 0.4 * tail / np.linalg.norm(tail)
    response[0] = 1.0
    return response


def mix(order, rng):
    """Return the recording and its turns (speaker, start, duration) in s."""
    rooms = {name: place(rng) for name in dict.fromkeys(name for name, _ in order)}
    total, now, turns = np.zeros(round(SECONDS * RATE)), 0.4, []
    for name, piece in order:
        sound = np.convolve(0.05 * piece / piece.std(), rooms[name])
        first = round(now * RATE)
        if first + len(sound) > len(total):
            break
        total[first : first + len(sound)] += sound
        turns.append((name, first / RATE, len(piece) / RATE))
        now += len(piece) / RATE + rng.uniform(0.15, 0.45)
    total += rng.standard_normal(len(total)) * 0.05 * 10 ** (-NOISE / 20)
    return total[: round((now + 0.3) * RATE)], turns


def main():
    """Write the meeting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("voices", "packed", "out"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    clips = read_clips(options.voices, options.packed)
    order = in_turn({name: turns_of(wave) for name, (_, wave) in clips.items()}, rng)
    wave, turns = mix(order, rng)
    options.out.mkdir(parents=True, exist_ok=True)
    soundfile.write(options.out / "sample.ogg", wave, RATE, format="OGG", subtype="OPUS")
    lines = [
        f"SPEAKER sample 1 {start:.4f} {duration:.4f} <NA> <NA> {name} <NA> <NA>\n"
        for name, start, duration in turns
    ]
    (options.out / "sample.rttm").write_text("".join(lines))
    licence = LICENCE + "".join(f"{name}: {clip}\n" for name, (clip, _) in sorted(clips.items()))
    (options.out / "LICENCE.txt").write_text(licence)
    size = (options.out / "sample.ogg").stat().st_size
    print(f"{len(wave) / RATE:.1f} s, {len(clips)} speakers, {len(turns)} turns, {size:,} bytes")


if __name__ == "__main__":
    main()
