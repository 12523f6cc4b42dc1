"""The encoder that ships beside a baseline and a pretrained one, on the same rows.

Usage: ``python benchmarks/small_encoder.py MEETINGS PACKED OUT [--encoders small,mfcc]``. MEETINGS
holds ``wav`` and ``TextGrid``: people of whom the encoder was neither trained nor chosen. PACKED is
what ``recipes/small_encoder/pack.py`` wrote, with the teacher: its held-out speakers, whom training
never saw but by whom the encoder was chosen, each corpus a recording (``clean``; ``phone``: 300 to
3400 Hz in 8-bit mu-law; ``overlap``: somebody else of the corpus 5 dB softer).

Every encoder's features are classified by the same commands (``spk-classify sweep``, refitted, the
layer chosen on validation); ``resemblyzer`` is that package's pretrained GE2E network, a vector per
segment. Writes ``OUT/small_encoder.csv``: set, encoder, classifier, layer, test segments and
speakers, accuracy with its 95 % interval. Copies under ``benchmarks/results`` are our own runs.
"""

import argparse
import csv
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from click.testing import CliRunner

from spk.__main__ import main as main_command
from spk.extract import StoreWriter
from spk.extract.audio import segments_of
from spk.manifests import read_table

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "small_encoder"
RATE = 16000
ENCODERS = ("small", "mfcc", "resemblyzer")
CLASSIFIERS = ("centroid", "lda")
CONDITIONS = ("clean", "phone", "overlap")
PIECE, MOST = 2.0, 10  # s, and how many of each speaker
SOFTER = 5.0  # dB, of somebody else's speech
STEP = 0.8  # s between the windows of 1.6 s that Resemblyzer averages


def run(*words: object) -> str:
    """Run a command as a user types it, in this process; return what it printed."""
    command = [str(word) for word in words]
    print("$", *command, flush=True)
    done = CliRunner().invoke(main_command, [command[0].removeprefix("spk-"), *command[1:]])
    if done.exit_code not in (0, 3):
        sys.exit(f"{done.output}{done.exception!r}")
    return done.output


def pieces_of(packed: Path, corpus: str) -> dict[str, list[np.ndarray]]:
    """Return pieces of `PIECE` s of each held-out speaker of a corpus."""
    with open(packed / "speakers.csv", newline="") as lines:
        rows = [r for r in csv.DictReader(lines) if r["corpus"] == corpus and r["held_out"] == "1"]
    size = round(PIECE * RATE)
    pieces = {}
    for row in rows:
        wave, _ = soundfile.read(packed / row["file"], dtype="float64")
        pieces[row["speaker"]] = [wave[i : i + size] for i in range(0, len(wave) - size + 1, size)][
            :MOST
        ]
    return pieces


def through_phone(wave: np.ndarray) -> np.ndarray:
    """Return a wave (n,) as a telephone line of 8-bit mu-law passes it on."""
    spectrum = np.fft.rfft(wave)
    hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
    wave = np.fft.irfft(spectrum * ((hertz > 300) & (hertz < 3400)), len(wave))
    wave = wave / np.abs(wave).max()
    coded = np.round(np.sign(wave) * np.log1p(255 * np.abs(wave)) / np.log(256) * 127) / 127
    return 0.5 * np.sign(coded) * (256 ** np.abs(coded) - 1) / 255


def write_recording(packed: Path, corpus: str, condition: str, folder: Path) -> None:
    """Write a corpus' pieces, speaker by speaker in turn, as one recording and its RTTM."""
    pieces, rng = pieces_of(packed, corpus), np.random.default_rng(0)
    names, waves, lines, now = sorted(pieces), [], [], 0
    for number in range(MOST):
        for name in names:
            if number >= len(pieces[name]):
                continue
            wave = pieces[name][number]
            if condition == "overlap":
                other = pieces[str(rng.choice([n for n in names if n != name]))]
                second = other[int(rng.integers(len(other)))]
                level = wave.std() / (second.std() + 1e-9) * 10 ** (-SOFTER / 20)
                wave = wave + level * second
            wave = through_phone(wave) if condition == "phone" else wave
            wave = 0.5 * wave / np.abs(wave).max()
            waves += [wave, np.zeros(RATE // 10)]
            lines.append(
                f"SPEAKER {corpus} 1 {now / RATE:.4f} {PIECE} <NA> <NA> {name} <NA> <NA>\n"
            )
            now += len(wave) + RATE // 10
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{corpus}.flac", np.concatenate(waves), RATE)
    (folder / f"{corpus}.rttm").write_text("".join(lines))


RESEMBLYZER = {
    "schema": 1,
    "kind": "pooled",
    "encoder": "resemblyzer",
    "revision": "0.1.4",
    "weights_sha256": "0" * 64,
    "encoder_config_sha256": "0" * 64,
    "untrained": False,
    "layers": [0],
    "layer_definition": "the embedding",
    "pooling": "mean",
    "dim": 256,
    "dtype": "float32",
    "compute_dtype": "float32",
    "rate": RATE,
    "channel": "0",
    "normalization": "none",
    "max_seconds": 40.0,
}


def resemblyzer(table: Path, audio: Path, packed: Path, store: Path) -> None:
    """Write Resemblyzer's vector of each segment to a store: the mean over windows of 1.6 s."""
    sys.path.insert(0, str(RECIPE))
    import torch
    from sound import Teacher

    teacher = Teacher(packed / "teacher.safetensors", torch.device("cpu"))
    size, step = round(1.6 * RATE), round(STEP * RATE)
    with StoreWriter(store, RESEMBLYZER) as writer:
        for segment in segments_of(read_table(table), audio):
            first, stop = round(segment.start * RATE), round(segment.end * RATE)
            wave, _ = soundfile.read(
                segment.path, start=first, stop=stop, dtype="float32", always_2d=True
            )
            wave = np.pad(wave[:, 0], (0, max(0, size - len(wave))))
            starts = [*range(0, len(wave) - size + 1, step)]
            if len(wave) - size - starts[-1] > step / 2:
                starts.append(len(wave) - size)
            windows = np.stack([wave[s : s + size] for s in starts])
            vector = teacher(torch.from_numpy(windows)).mean(0, keepdim=True).numpy()
            writer.add(
                segment.segment_id,
                vector / np.linalg.norm(vector),
                duration=len(wave) / RATE,
                frames=len(starts),
                audio_bytes=wave.nbytes,
                audio_crc32=zlib.crc32(wave.tobytes()),
            )


def scored(table: Path, store: Path, out: Path, classifier: str) -> dict[str, object]:
    """Sweep one classifier over all layers; return its test accuracy with the interval."""
    run("spk-classify", "sweep", table, store, out, "--classifiers", classifier)
    chosen = pd.read_csv(out / "sweep.csv").query("chosen == 'yes'").iloc[0]
    predictions = pd.read_csv(out / "predictions.csv")
    return {
        "layer": int(chosen["layers"]),
        "segments": len(predictions),
        "speakers": predictions.filter(regex="^(true|speaker)$").iloc[:, 0].nunique(),
        **{name: f"{chosen[name]:.3f}" for name in ("test_accuracy", "test_low", "test_high")},
    }


def one_set(name: str, audio: Path, options: argparse.Namespace, least: float) -> list[dict]:
    """Score the encoders and every classifier on one set of recordings."""
    packed, out = options.packed, options.out
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    turns, chosen, table = (folder / f"{x}.csv" for x in ("turns", "segments", "table"))
    run("spk-manifests", "rttm", audio, turns, "--audio-root", audio)
    run("spk-manifests", "select", turns, chosen, "--min-seconds", least)
    run("spk-manifests", "split", chosen, table, "--method", "chronological")
    rows = []
    for encoder in options.encoders.split(","):
        store, speed = folder / encoder, None
        if encoder == "resemblyzer":
            resemblyzer(table, audio, packed, store)
        else:
            words = (table, store, "--audio-root", audio, "--encoder", encoder)
            speed = re.search(r"([\d.]+) times real time", run("spk-extract", *words))
        for classifier in CLASSIFIERS:
            row = {"set": name, "encoder": encoder, "classifier": classifier}
            row |= scored(table, store, folder / f"{encoder}-{classifier}", classifier)
            rows.append(row | {"times_real_time": speed[1] if speed else ""})
            print(rows[-1], flush=True)
    return rows


def markdown(table: pd.DataFrame) -> str:
    """Return the rows as a Markdown table: accuracy in percent and its interval."""
    columns = [(e, c) for c in CLASSIFIERS for e in ENCODERS if e in set(table["encoder"])]
    lines = ["| set | test segments | " + " | ".join(f"{e}, {c}" for e, c in columns) + " |"]
    lines.append("|---" * (2 + len(columns)) + "|")
    for name, rows in table.groupby("set", sort=False):
        cells = {
            (row.encoder, row.classifier): f"{100 * float(row.test_accuracy):.1f} "
            f"({100 * float(row.test_low):.0f}-{100 * float(row.test_high):.0f})"
            for row in rows.itertuples()
        }
        shown = " | ".join(cells.get(column, "") for column in columns)
        lines.append(f"| {name} | {rows['segments'].iloc[0]} | {shown} |")
    return "\n".join(lines)


def main(options: argparse.Namespace) -> None:
    """Run everything and write the rows, beside those of other encoders from before."""
    rows, sheet = [], options.out / "small_encoder.csv"
    if "meetings" in options.sets:
        rows += one_set("meetings", options.meetings, options, 1.5)
    if "voices" in options.sets:
        with open(options.packed / "speakers.csv", newline="") as lines:
            corpora = sorted({row["corpus"] for row in csv.DictReader(lines)})
        for corpus in corpora:
            for condition in CONDITIONS:
                name = f"{corpus}-{condition}"
                audio = options.out / "audio" / name
                write_recording(options.packed, corpus, condition, audio)
                rows += one_set(name, audio, options, 1.0)
    table = pd.DataFrame(rows)
    if sheet.exists():
        before = pd.read_csv(sheet, dtype=str)
        keys = ["set", "encoder", "classifier"]
        table = pd.concat([before, table.astype(str)]).drop_duplicates(keys, keep="last")
    table.to_csv(sheet, index=False)
    print(markdown(table), sheet, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The encoder that ships beside others.")
    for argument in ("meetings", "packed", "out"):
        parser.add_argument(argument, type=Path)
    parser.add_argument("--sets", default="meetings,voices")
    parser.add_argument("--encoders", default=",".join(ENCODERS))
    main(parser.parse_args())
