"""What `pip install spk-toolkit` alone must do: run by an environment that holds nothing more.

A table, a split, a store written from Python, a sweep, a model, predictions and scores, without
torch and without LightGBM; and each command that needs more says so in one line.
"""

import importlib.util
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np

from spk.extract import StoreWriter
from spk.manifests import read_table

HEAVY = ("torch", "torchaudio", "transformers", "lightning", "tensorboard", "lightgbm", "yaml")
DIM = 16
CONFIG = {
    "schema": 1,
    "kind": "pooled",
    "encoder": "toy",
    "revision": "0" * 40,
    "weights_sha256": "a" * 64,
    "encoder_config_sha256": "b" * 64,
    "untrained": True,
    "layers": [0, 1],
    "layer_definition": "toy",
    "pooling": "mean",
    "dim": DIM,
    "dtype": "float32",
    "compute_dtype": "float32",
    "rate": 16000,
    "channel": "0",
    "normalization": "none",
    "max_seconds": 40.0,
}
WAY = (
    "spk-manifests demo corpus --sessions 2 --minutes 1 --speakers 3 --channels 1",
    "spk-manifests rttm corpus/TextGrid turns.csv --audio-root corpus/wav",
    "spk-manifests split turns.csv table.csv --gap 0.5",
    "spk-manifests leaks table.csv",
    "spk-extract table.csv planned --audio-root corpus/wav --encoder demo --plan",
)
LEARNT = (
    "spk-store verify store",
    "spk-store export store store.parquet",
    "spk-classify sweep table.csv store sweep",
    "spk-classify fit table.csv store model --classifiers ridge --layers 1",
    "spk-classify predict model table.csv store named.csv",
    "spk-classify score named.csv --table table.csv",
    "spk-classify report sweep --table table.csv --audio-root corpus/wav -o report.html",
    "spk-name enrol team.voices table.csv store --layer 1",
    "spk-name list team.voices",
)
LACKING = {
    "spk-extract table.csv features --audio-root corpus/wav --encoder demo": "extract",
    "spk-name apply team.voices corpus/TextGrid/20990301_S_R001S01C01.rttm "
    "--audio-root corpus/wav -o named": "extract",
    "spk-finetune fit table.csv --audio-root corpus/wav --encoder demo": "finetune",
    "spk-finetune fit table.csv --config transfer --audio-root corpus/wav": "finetune",
    "spk-classify sweep table.csv store trees --classifiers lightgbm --layers 1": "trees",
}


def type_line(line: str) -> tuple[int, str]:
    """Return a command line's exit code and stderr."""
    program, *words = line.split()
    command = [str(Path(sys.executable).with_name(program)), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def write_store() -> None:
    """Write a toy store of the table: a voice per speaker in layer 1, noise in layer 0."""
    rng = np.random.default_rng(0)
    table = read_table("table.csv")
    voices = {name: rng.normal(size=DIM) for name in sorted(set(table["speaker"]))}
    with StoreWriter("store", CONFIG) as writer:
        for name, speaker in zip(table["segment_id"], table["speaker"], strict=True):
            rows = np.stack([rng.normal(size=DIM), voices[speaker] + rng.normal(size=DIM)])
            writer.add(
                name,
                rows.astype(np.float32),
                duration=1.0,
                frames=49,
                audio_bytes=32000,
                audio_crc32=zlib.crc32(name.encode()),
            )


def main() -> None:
    """Go the way; stop with what failed."""
    present = [name for name in HEAVY if importlib.util.find_spec(name)]
    if present:
        sys.exit(f"a light install brings {present}, expected none of them")
    for line in WAY:
        if type_line(line)[0]:
            sys.exit(f"{line}: {type_line(line)}")
    write_store()
    for line in LEARNT:
        code, output = type_line(line)
        if code:
            sys.exit(f"{line}: exit code {code}\n{output}")
    for line, extra in LACKING.items():
        code, output = type_line(line)
        if code != 1 or output.count("\n") != 1 or f'"spk-toolkit[{extra}]"' not in output:
            sys.exit(f"{line}: exit code {code}, expected 1 and the extra {extra}\n{output}")


if __name__ == "__main__":
    main()
