"""What scores are made of: whitening, and normalisation by other persons, on speech left out.

Usage: ``python benchmarks/naming_scores.py CLIPS OUT [--people 10,25,60] [--encoder mfcc]``. CLIPS
holds an ``index.csv`` (`speaker`, `clip`, `start`, `end` in s) beside a recording for each speaker.
Of the first so many people twelve clips each are enrolled, and clips and people are left out in
turn, as `spk name enrol` does to calibrate. Writes ``OUT/naming_scores.csv``: for each way the
log-loss of the trials, how many known speakers are best, and how many are named where 5 % of the
strangers are. The copies under ``benchmarks/results`` are our own runs.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from spk.classify.naming import calibration, scoring
from spk.classify.naming.enrolment import enrol
from spk.classify.naming.stretches import Stretches
from spk.extract import FeatureStore, extract

CLIPS, WANTED = 12, 0.05


def table_of(folder: Path, people: int) -> pd.DataFrame:
    """Return the first clips of the first people as a segment table."""
    rows = pd.read_csv(folder / "index.csv", dtype={"clip": str, "speaker": str})
    names = sorted(rows["speaker"].unique())[:people]
    rows = rows[rows["speaker"].isin(names)].groupby("speaker").head(CLIPS)
    where = {path.stem: path.name for path in folder.iterdir()}
    rows = rows.assign(
        segment_id=rows["speaker"] + " " + rows["clip"],
        session=rows["speaker"] + "/" + rows["clip"],
        audio=rows["speaker"].map(where),
        overlap=0.0,
    )
    names = ["segment_id", "audio", "start", "end", "speaker", "session", "overlap"]
    return rows[names].reset_index(drop=True)


class Normalised:
    """A scorer whose scores are told in deviations from those of a row's other persons."""

    def __init__(self, scorer: scoring.Scorer) -> None:
        self.scorer, self.names = scorer, scorer.names

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Return scores (n, P)."""
        cosines = self.scorer.scores(X)
        others = cosines.shape[1] - 1
        mean = (cosines.sum(axis=1, keepdims=True) - cosines) / others
        square = (np.square(cosines).sum(axis=1, keepdims=True) - np.square(cosines)) / others
        return (cosines - mean) / np.sqrt(np.maximum(square - mean**2, 1e-8))


@contextmanager
def way(name: str) -> Iterator[None]:
    """Score in another way meanwhile."""
    fit: Callable[[Stretches], scoring.Scorer] = scoring.fit_scorer
    whitening = scoring._whitening
    if name == "not whitened":
        scoring._whitening = lambda X: (np.zeros((X.shape[1], 0)), np.zeros(0))
    if name == "normalised":
        calibration.fit_scorer = lambda stretches: Normalised(fit(stretches))
    try:
        yield
    finally:
        scoring._whitening, calibration.fit_scorer = whitening, fit


def measure(table: pd.DataFrame, store: FeatureStore, name: str) -> dict[str, str]:
    """Return what the left-out trials of an enrolment tell of a way to score."""
    with way(name):
        voices = enrol(table, store, layer=store.layers[0], log=lambda line: None)
        trials = calibration.make_trials(voices.stretches)
    is_known, learnt = trials.truth >= 0, voices.calibration
    logs = learnt.calibrator.log_probabilities(trials.scores, trials.seconds)
    right = logs[:, :-1].argmax(axis=1) == trials.truth
    named = np.exp(logs[:, :-1].max(axis=1)) >= learnt.threshold(WANTED)
    shares = {"loss": learnt.loss, "best": right[is_known].mean()}
    shares["named"] = (right & named)[is_known].mean()
    return {key: f"{value:.3f}" for key, value in shares.items()}


def main(clips: Path, out: Path, people: str, encoder: str) -> None:
    """Measure every way with ever more people."""
    rows = []
    for count in map(int, people.split(",")):
        table = table_of(clips, count)
        where = {"audio_root": clips, "encoder": encoder, "resample": True}
        store = extract(table, out / f"clips-{encoder}", log=lambda line: None, **where)
        for name in ("whitened", "not whitened", "normalised"):
            facts = {"clips": clips.name, "encoder": encoder, "people": count, "scores": name}
            rows.append({**facts, **measure(table, store, name)})
            print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(out / "naming_scores.csv", index=False, lineterminator="\n")
    print(out / "naming_scores.csv")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What scores are made of.")
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--people", default="10,25,60")
    parser.add_argument("--encoder", default="mfcc")
    main(**vars(parser.parse_args()))
