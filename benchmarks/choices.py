"""Whether all layers in one vector name more segments than the layer that validation chooses.

Usage: ``python benchmarks/choices.py MEETINGS OUT``. MEETINGS holds ``wav`` and ``TextGrid``. Five
blocks of time per speaker are tested in turn, so that nearly every segment is a test segment once;
features are the built-in encoder's, which is untrained. Writes ``OUT/choices.txt``, what
`spk-classify compare` says of each choice against the default.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd

FOLDS = 5
CLASSIFIERS = ("ridge", "lda", "logistic", "linear-svm")
CHOICES = {
    "default": (),
    "concat": ("--combine", "concat"),
}


def run(*words: object) -> str:
    """Run a command as a user types it; return what it printed."""
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def tables(meetings: Path, out: Path) -> Path:
    """Make a table per fold and the store of them all; return the store."""
    run("spk-manifests", "rttm", meetings / "TextGrid", out / "turns.csv", "--audio-root", meetings)
    run("spk-manifests", "select", out / "turns.csv", out / "all.csv", "--min-seconds", "1.5")
    for fold in range(FOLDS):
        blocks = ("--method", "blocked-k", "--folds", FOLDS, "--fold", fold)
        run("spk-manifests", "split", out / "all.csv", out / f"{fold}.csv", *blocks)
    options = ("--audio-root", meetings, "--encoder", "demo")
    run("spk-extract", out / "all.csv", out / "store", *options)
    return out / "store"


def named(out: Path, store: Path, choice: str, classifier: str) -> Path:
    """Sweep each fold with a choice; return the file of all test segments' names."""
    parts = []
    for fold in range(FOLDS):
        folder = out / f"{choice} {classifier} {fold}"
        options = ("--classifiers", classifier, *CHOICES[choice])
        run("spk-classify", "sweep", out / f"{fold}.csv", store, folder, *options)
        parts.append(pd.read_csv(folder / "predictions.csv"))
    file = out / f"{choice} {classifier}.csv"
    pd.concat(parts).assign(model=f"{classifier}, {choice}").to_csv(file, index=False)
    return file


def main(meetings: Path, out: Path) -> None:
    """Compare every choice with the default, for each classifier."""
    out.mkdir(parents=True, exist_ok=True)
    store, lines = tables(meetings, out), []
    for classifier in CLASSIFIERS:
        default = named(out, store, "default", classifier)
        for choice in list(CHOICES)[1:]:
            other = named(out, store, choice, classifier)
            printed = run("spk-classify", "compare", default, other, "--split", "all").splitlines()
            lines.append(f"{classifier}, {choice}: {printed[-1]}")
    (out / "choices.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
