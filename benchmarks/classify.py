"""The sweep engine against the scikit-learn loop a user would write, both sides in one run.

Usage: ``python benchmarks/classify.py [--full] [--csv FILE]``. Features are random with a centre
per class. Rows:

- ``corpus``: one task over all classes, folds x penalties, every layer of a store read in turn;
- ``session``: a closed set per meeting, from train to valid, by `spk.classify.selection.sweep`;
- ``growth``: the corpus task at a quarter, half and all of the segments, one layer;

Both sides run on one thread and count CPU seconds, so that a busy machine blurs them less.
scikit-learn is timed on a few (layer, fold, penalty) cells and multiplied; ``measured`` says how
many of how many. Ours is timed on all layers of the store, of which ``--layers`` says the number.
``wall`` is what a user waits for ours, a process per core. ``difference`` is the largest between
scores of measured cells, ``changed`` counts predictions that differ, ``load`` is the machine's when
the row began, ``peak_gb`` this process's largest memory up to the end of our part. The file is
written anew after each row, so a stopped run keeps what it has measured.
"""

import argparse
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from classify_corpus import session_table, write_store

from spk.classify.classifiers.registry import PENALTIES
from spk.classify.options import SweepSettings
from spk.classify.selection.cross_validation import cross_validate
from spk.classify.selection.sweep import one_thread, sweep
from spk.extract.store.reader import FeatureStore
from spk.manifests.splits.tasks import make_tasks

SMALL = {
    "segments": 1500,
    "layers": 2,
    "dim": 256,
    "classes": 40,
    "sessions": 4,
    "per_session": 120,
}
FULL = {
    "segments": 10_000,
    "layers": 25,
    "dim": 2048,
    "classes": 200,
    "sessions": 30,
    "per_session": 300,
}
FOLDS = 5
PATHS = {
    "ridge": tuple(10.0 ** np.linspace(0, 6, 13)),
    "lda": tuple(np.linspace(0.01, 0.97, 13)),
}


def blocks(rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return folds as (learnt, held out): rows of any class lie scattered, so each has all."""
    parts = np.array_split(np.random.default_rng(1).permutation(rows), FOLDS)
    return [(np.setdiff1d(np.arange(rows), part), np.sort(part)) for part in parts]


def pipeline(name: str, penalty: float) -> Any:
    """Return what a user would write."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.neighbors import NearestCentroid
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = {
        "ridge": lambda: RidgeClassifier(alpha=penalty),
        "lda": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=penalty),
        "logistic": lambda: LogisticRegression(C=1 / penalty, max_iter=5000),
        "centroid": NearestCentroid,
    }[name]()
    return make_pipeline(StandardScaler(), model)


def peak() -> float:
    """Return this process's largest memory so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def ours_corpus(store: FeatureStore, codes: np.ndarray, name: str) -> tuple[float, list[Any]]:
    """Return the seconds for every layer, fold and penalty, and the first layer's scores."""
    ids, cuts, first = store.ids(), blocks(len(codes)), []
    started = time.process_time()
    for layer in store.layers:
        X = store.read(ids, layer)
        scores, _ = cross_validate(X, codes, int(codes.max()) + 1, cuts, {name: PATHS[name]})
        first = first or scores[name]
    return time.process_time() - started, first


def theirs_corpus(
    X: np.ndarray, codes: np.ndarray, name: str, cells: int, scores: list[np.ndarray]
) -> tuple[float, float, int]:
    """Return seconds per cell (fit and score), the largest difference, and changed predictions."""
    cuts, chosen = blocks(len(codes)), np.linspace(0, len(PATHS[name]) - 1, cells).astype(int)
    seconds, difference, changed = 0.0, 0.0, 0
    for cell, number in enumerate(chosen):
        learnt, held_out = cuts[cell % FOLDS]
        started = time.process_time()
        model = pipeline(name, PATHS[name][number]).fit(X[learnt], codes[learnt])
        theirs = model.decision_function(X[held_out])
        seconds += time.process_time() - started
        ours = scores[number][held_out]
        difference = max(difference, float(np.abs(theirs - ours).max()))
        changed += int((theirs.argmax(axis=1) != ours.argmax(axis=1)).sum())
    return seconds / cells, difference, changed


def corpus_rows(size: dict[str, int], cells: int, layers: int, folder: Path) -> Iterator[dict]:
    """Time both sides on one task over all classes."""
    codes = np.arange(size["segments"]) % size["classes"]
    store = write_store(folder / "corpus", codes, layers, size["dim"])
    for name, path in PATHS.items():
        load = os.getloadavg()[0]
        seconds, scores = ours_corpus(store, codes, name)
        memory = peak()
        for dtype in ("float64", "float32") if name == "ridge" else ("float64",):
            X = store.read(store.ids(), 0).astype(dtype)
            cell_s, difference, changed = theirs_corpus(X, codes, name, cells, scores)
            every = FOLDS * len(path) * layers
            yield {
                "case": "corpus",
                "classifier": name,
                "size": f"{size['segments']} x {layers} x {size['dim']} x {size['classes']}",
                "fits": every,
                "ours_cpu_s": round(seconds, 2),
                "theirs": f"scikit-learn {dtype}",
                "theirs_cpu_s": round(cell_s * every, 2),
                "measured": f"{cells} of {every}",
                "ratio": round(cell_s * every / seconds, 1),
                "difference": f"{difference:.1e}",
                "changed": changed,
                "peak_gb": round(memory, 2),
                "load": round(load, 1),
            }


def session_rows(size: dict[str, int], cells: int, layers: int, folder: Path) -> Iterator[dict]:
    """Time `sweep`, and the loop over `cells` meetings, one layer and a penalty in the middle."""
    table = session_table(size["sessions"], size["per_session"])
    codes = np.unique(table["speaker"], return_inverse=True)[1]
    store = write_store(folder / "session", codes, layers, size["dim"])
    tasks, _ = make_tasks(table, "session")
    ids = table["segment_id"].to_numpy(str)
    for name in ("centroid", "ridge", "lda", "logistic"):
        load, started = os.getloadavg()[0], time.perf_counter()
        sweep(table, store, tasks, SweepSettings(classifiers=name))
        wall, started = time.perf_counter() - started, time.process_time()
        sweep(table, store, tasks, SweepSettings(classifiers=name, jobs=1))
        seconds = time.process_time() - started
        X, started = store.read(ids, 0), time.process_time()
        penalty = PENALTIES[name][len(PENALTIES[name]) // 2]
        for task in tasks[:cells]:
            train, valid = task.rows["train"], task.rows["valid"]
            model = pipeline(name, penalty or 0).fit(X[train], task.codes["train"])
            model.predict(X[valid])
        cell_s = (time.process_time() - started) / cells
        count = len(tasks) * layers * len(PENALTIES[name])
        theirs = cell_s * count
        yield {
            "case": "session",
            "classifier": name,
            "size": f"{size['sessions']} x {size['per_session']} x {layers} x {size['dim']}",
            "fits": count,
            "ours_cpu_s": round(seconds, 2),
            "theirs": "scikit-learn float32",
            "theirs_cpu_s": round(theirs, 2),
            "measured": f"{cells} of {count}",
            "ratio": round(theirs / seconds, 1),
            "wall": round(wall, 2),
            "load": round(load, 1),
        }


def growth_rows(size: dict[str, int], folder: Path) -> Iterator[dict]:
    """Time our corpus task at n/4, n/2 and n; say with which power of n it grew."""
    last = 0.0
    for share in (4, 2, 1):
        codes = np.arange(size["segments"] // share) % size["classes"]
        store = write_store(folder / f"growth{share}", codes, 1, size["dim"])
        load = os.getloadavg()[0]
        seconds, _ = ours_corpus(store, codes, "ridge")
        yield {
            "case": "growth",
            "classifier": "ridge",
            "size": f"{len(codes)} x 1 x {size['dim']} x {size['classes']}",
            "fits": FOLDS * len(PATHS["ridge"]),
            "ours_cpu_s": round(seconds, 2),
            "measured": f"grew as n^{np.log2(seconds / last):.2f}" if last else "",
            "load": round(load, 1),
        }
        last = seconds


def show(row: dict) -> None:
    """Print one row."""
    print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def main(full: bool, layers: int | None, cells: int, cases: str, out: Path | None) -> None:
    """Run the cases and write the rows."""
    warnings.simplefilter("ignore")  # convergence of the loop's lbfgs is not our matter
    size = FULL if full else SMALL
    layers, rows = layers or size["layers"], []
    pipeline("ridge", 1.0)  # scikit-learn is loaded before anything is timed
    with tempfile.TemporaryDirectory() as name, one_thread(["linear-svm"]):
        folder = Path(name)
        made = {
            "corpus": lambda: corpus_rows(size, cells, layers, folder),
            "session": lambda: session_rows(size, cells, layers, folder),
            "growth": lambda: growth_rows(size, folder),
        }
        for case in cases.split(","):
            for row in made[case]():
                show(row)
                rows.append(row)
                if out is not None:
                    pd.DataFrame(rows).to_csv(out, index=False, lineterminator="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The sweep engine against a scikit-learn loop.")
    parser.add_argument("--full", action="store_true", help="10,000 x 25 x 2048 x 200 classes")
    parser.add_argument("--layers", type=int, help="layers in the store, fewer than the size's")
    parser.add_argument("--cells", type=int, default=2, help="scikit-learn fits that are timed")
    parser.add_argument("--cases", default="corpus,session,growth")
    parser.add_argument("--csv", dest="out", type=Path)
    main(**vars(parser.parse_args()))
