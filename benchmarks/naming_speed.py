"""How long ``spk name apply`` takes for a long meeting, features included.

Usage: ``python benchmarks/naming_speed.py MEETINGS OUT [--minutes 60]``. MEETINGS holds ``wav``,
``TextGrid`` and ``people.csv``. Its recordings are put in a row until there is one of so many
minutes; all people of them are enrolled. Prints what ``apply`` took, once with an empty cache and
once again.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from spk.__main__ import main as spk

RATE = 16000


def typed(line: str) -> float:
    """Run a command as a user types it; return how long it took (s)."""
    begun = time.perf_counter()
    try:
        spk(line.split(), prog_name="spk")
    except SystemExit as end:
        if end.code not in (0, 3):
            raise
    return time.perf_counter() - begun


def long_meeting(meetings: Path, out: Path, minutes: float) -> None:
    """Write OUT/long.flac and OUT/long.rttm: recordings in a row, the last one cut."""
    people = pd.read_csv(meetings / "people.csv", dtype=str)
    person = dict(zip(people["session"] + people["speaker"], people["person"], strict=True))
    waves, lines, offset, wanted = [], [], 0.0, 60 * minutes
    files = sorted((meetings / "wav").glob("*.flac"))
    while offset < wanted:
        file = files[len(waves) % len(files)]
        wave, rate = soundfile.read(file, dtype="int16", always_2d=True)
        assert_rate(file, rate)
        waves.append(wave[: round((wanted - offset) * RATE), 0])
        for line in (meetings / "TextGrid" / f"{file.stem}.rttm").read_text().splitlines():
            fields = line.split()
            start, seconds = offset + float(fields[3]), float(fields[4])
            if start + seconds < min(wanted, offset + len(waves[-1]) / RATE):
                label = person.get(file.stem + fields[7], fields[7])
                lines.append(
                    f"SPEAKER long 1 {start:.4f} {seconds:.4f} <NA> <NA> {label} <NA> <NA>"
                )
        offset += len(waves[-1]) / RATE
    soundfile.write(out / "long.flac", np.concatenate(waves), RATE)
    (out / "long.rttm").write_text("\n".join(lines) + "\n")


def assert_rate(file: Path, rate: int) -> None:
    """End with a message where a recording has another rate."""
    if rate != RATE:
        raise SystemExit(f"{file}: rate is {rate} Hz, expected {RATE}")


def main(meetings: Path, out: Path, minutes: float) -> None:
    """Enrol everybody, name the long meeting twice, print the times."""
    out.mkdir(parents=True)
    long_meeting(meetings, out, minutes)
    wav, turns, features = meetings / "wav", out / "turns.csv", out / "features"
    typed(f"manifests rttm {meetings}/TextGrid {turns} --audio-root {wav} -q")
    typed(f"extract {turns} {features} --audio-root {wav} --encoder small -q")
    people = f"--identity {meetings}/people.csv --audio-root {wav}"
    typed(f"name enrol {out}/all.voices {turns} {features} {people} -q")
    line = f"name apply {out}/all.voices {out}/long.rttm --audio {out}/long.flac -o {out}/named -q"
    for which in ("first", "again"):
        print(f"{minutes:g} minutes, {which}: {typed(line):.1f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("meetings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    main(options.meetings, options.out, options.minutes)
