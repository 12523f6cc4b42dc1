"""Pack `voices/` small enough to travel: pauses shortened, held-out speakers named.

    python pack.py VOICES PACKED [--teacher resemblyzer-0.1.4-py3-none-any.whl]

PACKED then holds one Ogg/Opus file per speaker, `speakers.csv` (corpus, speaker, file, seconds,
held_out) and, with --teacher, the teacher's weights as float16 (`teacher.safetensors`).
"""

import argparse
import csv
import io
import random
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import ogg
import soundfile

RATE = 16000
FRAME = 320  # samples, 20 ms
DROP = 35.0  # dB under the loud frames: a pause
MARGIN = 8  # frames of pause left on either side of speech
HELD_OUT = {
    "speechocean762": 32,
    "librispeech": 40,
    "arabic_speech_commands": 6,
    "dspspeech20": 4,
}
SHORTEST_HELD_OUT = 11.0  # s; a held-out speaker must fill enrolment and test


def spoken(wave, clips):
    """Return which frames of a wave (n,) int16 lie in its clips and not deep in a pause."""
    count = len(wave) // FRAME
    frames = wave[: count * FRAME].reshape(count, FRAME).astype(np.float64)
    level = 10 * np.log10(frames.var(1) + 1.0)
    wanted = np.zeros(count, bool)
    for start, end in clips:
        inside = slice(round(start * RATE / FRAME), min(count, round(end * RATE / FRAME)))
        part = level[inside]
        if len(part) < 5:
            continue
        loud = part > np.percentile(part, 95) - DROP
        wanted[inside] = np.convolve(loud, np.ones(2 * MARGIN + 1))[MARGIN : MARGIN + len(loud)] > 0
    return wanted


def read_corpus(folder):
    """Return {speaker: [(start, end), ...]} in s."""
    clips = defaultdict(list)
    with open(folder / "index.csv", newline="") as lines:
        for row in csv.DictReader(lines):
            clips[row["speaker"]].append((float(row["start"]), float(row["end"])))
    return clips


def pack_speaker(corpus, speaker, source, clips, target, longest):
    """Write a speaker's speech, at most `longest` s of it; return its row of speakers.csv."""
    wave, rate = soundfile.read(source, dtype="int16")
    if rate != RATE or wave.ndim != 1:
        raise SystemExit(f"{source}: rate is {rate}, expected {RATE} Hz and one channel")
    head, tags, *packets = ogg.packets(source.read_bytes())
    wanted = np.flatnonzero(spoken(wave, clips))[: round(longest * RATE / FRAME)]
    target.write_bytes(ogg.write(head, tags, [packets[i] for i in wanted if i < len(packets)]))
    seconds = soundfile.info(target).frames / RATE
    return {"corpus": corpus, "speaker": speaker, "file": target.name, "seconds": round(seconds, 2)}


def hold_out(rows, seed):
    """Mark held-out speakers, drawn by corpus among those with enough speech."""
    rng = random.Random(seed)
    for corpus, count in HELD_OUT.items():
        fit = sorted(
            r["speaker"]
            for r in rows
            if r["corpus"] == corpus and r["seconds"] >= SHORTEST_HELD_OUT
        )
        chosen = set(rng.sample(fit, min(count, len(fit) // 2)))
        for row in rows:
            if row["corpus"] == corpus:
                row["held_out"] = int(row["speaker"] in chosen)


def pack_teacher(wheel, target):
    """Save the GE2E weights of Resemblyzer's wheel as float16."""
    import torch
    from safetensors.torch import save_file

    with zipfile.ZipFile(wheel) as files:
        raw = io.BytesIO(files.read("resemblyzer/pretrained.pt"))
    state = torch.load(raw, map_location="cpu", weights_only=True)["model_state"]
    wanted = {k: v for k, v in state.items() if k.startswith(("lstm.", "linear."))}
    save_file({k: v.half().contiguous() for k, v in wanted.items()}, target)


def main():
    """Pack the voices that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("voices", type=Path)
    parser.add_argument("packed", type=Path)
    parser.add_argument("--teacher", type=Path, help="Resemblyzer's wheel")
    parser.add_argument("--longest", type=float, default=3600.0, help="s of a speaker")
    parser.add_argument("--seed", type=int, default=20)
    options = parser.parse_args()
    options.packed.mkdir(parents=True, exist_ok=True)
    rows = []
    for corpus in HELD_OUT:
        folder = options.voices / corpus
        for speaker, clips in sorted(read_corpus(folder).items()):
            source, target = folder / f"{speaker}.ogg", options.packed / f"{speaker}.ogg"
            rows.append(pack_speaker(corpus, speaker, source, clips, target, options.longest))
    hold_out(rows, options.seed)
    with open(options.packed / "speakers.csv", "w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    if options.teacher:
        pack_teacher(options.teacher, options.packed / "teacher.safetensors")
    size = sum(p.stat().st_size for p in options.packed.iterdir())
    hours = sum(r["seconds"] for r in rows) / 3600
    print(f"{len(rows)} speakers, {hours:.2f} h, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
