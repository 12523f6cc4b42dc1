"""What the settings of `spk-classify link` were chosen by: simulated meetings of other people.

Usage: ``python benchmarks/links_settings.py DEVELOPMENT OUT [--encoders small,mfcc,demo]``, where
DEVELOPMENT is what ``links_meetings.py`` wrote. Nothing that is quoted as a result is read here.

``OUT/links_rooms.csv``: pairs of labels in order of their cosine (area under precision and recall)
where nothing, all, or the room's share of a session's mean is taken out, within series and across.
``OUT/links_claims.csv``: d' and how far the heaps of scores lie apart, with ids of a series and
without; how many labels of `MIN_CONFIDENCE` there are, and how many of them are right (the person
is that of most other labels there; or alone, and really in no other session), as the least share
of people whom caution reckons with varies. Where a limit says that the encoder is too weak,
``claimed`` is what would have been claimed.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from links import Corpus, ends_of, read
from sklearn.metrics import average_precision_score

from spk.classify.features import open_store
from spk.classify.linking import basis, calibration, labels, link_labels

SHARES = (0.0, 0.1, 0.2)
MIN_CONFIDENCE = 0.8


def nothing(vectors: np.ndarray, sessions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take no room out."""
    return np.zeros_like(vectors) + vectors.mean(axis=0), np.zeros(len(vectors))


def everything(vectors: np.ndarray, sessions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take the whole mean of the session out."""
    codes = np.unique(sessions, return_inverse=True)[1]
    means = np.stack([vectors[codes == code].mean(axis=0) for code in range(codes.max() + 1)])
    return means[codes], np.ones(len(vectors))


ROOMS = {"nothing": nothing, "all": everything, "share": labels.room_of}


def links_of(corpus: Corpus, **options):
    """Return what `link` says, quietly."""
    return link_labels(corpus.table, corpus.store, log=lambda line: None, **options)


def same_person(pairs: pd.DataFrame, corpus: Corpus) -> np.ndarray:
    """Return which pairs are one person."""
    first, second = ends_of(pairs)
    people = corpus.people
    return np.array([people[a] == people[b] for a, b in zip(first, second, strict=True)])


def room_rows(encoder: str, corpus: Corpus):
    """Yield the rows of ``links_rooms.csv``."""
    layer = open_store(corpus.store).layers[-1]
    for name, room_of in ROOMS.items():
        labels.room_of = room_of
        pairs = links_of(corpus, layer=layer).pairs
        same = same_person(pairs, corpus)
        inside = (pairs["session_a"].str[:15] == pairs["session_b"].str[:15]).to_numpy()
        row = {"encoder": encoder, "layer": layer, "taken_out": name}
        for what, rows in (("all", inside | True), ("series", inside), ("across", ~inside)):
            area = average_precision_score(same[rows], pairs["score"][rows])
            row[f"order_{what}"] = f"{area:.3f}"
        yield row
    labels.room_of = ROOMS["share"]


def right_labels(rows: pd.DataFrame, corpus: Corpus) -> np.ndarray:
    """Return which labels (n,) bool have the right person."""
    truth = np.array(
        [corpus.people[key] for key in rows[["session", "speaker"]].itertuples(False, None)]
    )
    persons = rows["person"].to_numpy(str)
    right = []
    for k in range(len(rows)):
        others = persons == persons[k]
        others[k] = False
        there = np.delete(truth, k) == truth[k]
        right.append((truth[others] == truth[k]).mean() > 0.5 if others.any() else not there.any())
    return np.array(right)


def claim_rows(encoder: str, corpus: Corpus):
    """Yield the rows of ``links_claims.csv``."""
    limits = basis.WEAKEST, basis.STANDS_OUT, basis.FEW
    for ids in (0.99, 0.0):
        weakness = links_of(corpus, same_id=ids).facts["weakness"]
        basis.WEAKEST, basis.STANDS_OUT, basis.FEW = -np.inf, -np.inf, -np.inf
        for share in SHARES:
            calibration.SHARED = share
            links = links_of(corpus, same_id=ids, min_confidence=0.0)
            sure = (links.people["confidence"] >= MIN_CONFIDENCE).to_numpy()
            right = right_labels(links.people, corpus)
            model = calibration.ScoreModel(**links.facts["calibration"])
            yield {
                "encoder": encoder,
                "ids": "yes" if ids else "no",
                "layer": links.facts["layer"],
                "d_prime": f"{links.facts['separation']['d_prime']:.2f}",
                "heaps": f"{model.d_prime:.2f}",
                "caution": share,
                "claimed": int(sure.sum()),
                "right": f"{100 * right[sure].mean():.1f}",
                "too_weak": "yes" if weakness else "",
            }
        basis.WEAKEST, basis.STANDS_OUT, basis.FEW = limits
    calibration.SHARED = SHARES[-1]


def main(development: Path, out: Path, encoders: str) -> None:
    """Write both tables."""
    out.mkdir(parents=True, exist_ok=True)
    rooms, claims = [], []
    for encoder in encoders.split(","):
        corpus = read(development, encoder, out)
        rooms += room_rows(encoder, corpus)
        claims += claim_rows(encoder, corpus)
    for name, rows in (("links_rooms.csv", rooms), ("links_claims.csv", claims)):
        pd.DataFrame(rows).to_csv(out / name, index=False, lineterminator="\n")
        print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the settings of link were chosen by.")
    parser.add_argument("development", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoders", default="small,mfcc,demo")
    main(**vars(parser.parse_args()))
