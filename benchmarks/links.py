"""Who is who over several meetings: `spk-classify link` on real voices, against simpler rules.

Usage: ``python benchmarks/links.py MEETINGS DEVELOPMENT OUT [--encoders small,mfcc]``. MEETINGS
holds ``wav``, ``TextGrid`` and ``people.csv``; DEVELOPMENT is what ``links_meetings.py`` wrote, of
other people: the settings of `link`, and the threshold of the rule that needs one, come from there
alone.

``OUT/links.csv`` has a row per encoder, ids, share of labels that are known, and rule: precision,
recall and F1 of pairs of labels of different sessions, with 95 % intervals (sessions are drawn with
replacement, a pair counts as often as both of its sessions are drawn; or Wilson's over pairs where
that is wider, for F1 the harmonic mean of its ends). Pairs of two known labels are no trial. Known
labels are drawn ``DRAWS`` times; all draws count together. ``order`` is the area under precision
and recall with the pairs in order of the rule's own number.

Rules: ``link``, what people.csv claims; ``guess``, its best guess for unsure labels too;
``centroid``, cosine of the labels' plain means above the threshold that has the best F1 on
DEVELOPMENT, one label of a session in a person; ``ids``, one id in a series is one person;
``random``, as many pairs as ``link`` has, drawn at random.

``OUT/links_series.csv``: two ids of a series exchanged in one session, each such exchange in turn.
How many of the exchanged ids series.csv tells, and how many others, with intervals over ids;
``order`` is the area with ids in order of the least probability (``centroid``: cosine) of two of
their labels. The copies under ``benchmarks/results`` are our own.
"""

import argparse
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from spk.classify.features import open_store
from spk.classify.linking import Links, link_labels
from spk.classify.linking.clustering import pair_matrix, partition
from spk.classify.linking.labels import usable_rows
from spk.classify.metrics import percentiles, wilson
from spk.extract import extract
from spk.manifests import make_table, read_rttm
from spk.manifests.formats.aishell4 import local_speaker, parse_session
from spk.manifests.formats.build import read_identity

SEED, DRAWS, RESAMPLES = 0, 5, 1000
SHARES = (0.0, 0.25, 0.5)
END = ["session_a", "speaker_a"], ["session_b", "speaker_b"]


class Corpus(NamedTuple):
    """A folder's table, features and people."""

    table: pd.DataFrame
    store: Path
    people: dict[tuple[str, str], str]


class Trials(NamedTuple):
    """Pairs: their sessions, whether they are one person, are linked, and a number to rank by."""

    sessions: np.ndarray
    same: np.ndarray
    linked: np.ndarray
    ranks: np.ndarray


def read(folder: Path, encoder: str, out: Path) -> Corpus:
    """Extract a folder's turns."""
    table = make_table(read_rttm(folder / "TextGrid"), audio_root=folder / "wav")
    place = out / f"{folder.name}-{encoder}"
    extract(table, place, audio_root=folder / "wav", encoder=encoder, log=lambda line: None)
    return Corpus(table, place, read_identity(folder / "people.csv"))


def linked(corpus: Corpus, **options) -> Links:
    """Return what `link` says, quietly."""
    return link_labels(corpus.table, corpus.store, log=lambda line: None, **options)


def ends_of(pairs: pd.DataFrame) -> list[list[tuple[str, str]]]:
    """Return the labels at the first and at the second end of each pair."""
    return [[*pairs[names].itertuples(index=False, name=None)] for names in END]


def trials_of(links: Links, corpus: Corpus, rule: str, rng: np.random.Generator) -> Trials:
    """Return the pairs that are not known, and what `link`, `guess`, `ids` or `random` says."""
    pairs = links.pairs[links.pairs["known"].fillna("") == ""]
    first, second = ends_of(pairs)
    same = np.array(
        [corpus.people[a] == corpus.people[b] for a, b in zip(first, second, strict=True)]
    )
    rows = links.people if rule != "guess" else pd.concat([links.people, links.unsure])
    rows = rows.loc[rows["person"] != "", ["session", "speaker", "person"]]
    person = {(session, speaker): name for session, speaker, name in rows.to_numpy()}
    is_linked = [
        person.get(a, "") == person.get(b, "-") for a, b in zip(first, second, strict=True)
    ]
    ranks = pairs["probability"].fillna(0.0).to_numpy()
    if rule == "ids":
        is_linked = [
            series(a) == series(b) and a[1] == b[1] for a, b in zip(first, second, strict=True)
        ]
        ranks = np.array(is_linked, dtype=float)
    if rule == "random":
        ranks = rng.random(len(pairs))
        is_linked = ranks.argsort().argsort() < sum(is_linked)
    sessions = pairs[["session_a", "session_b"]].to_numpy(str)
    return Trials(sessions, same, np.array(is_linked, dtype=bool), ranks)


def series(label: tuple[str, str]) -> str:
    """Return the series of a label's session."""
    return parse_session(label[0]).series


class Centroids:
    """Cosines of the plain means of labels, at one layer."""

    def __init__(self, corpus: Corpus, layer: int) -> None:
        store = open_store(corpus.store)
        rows = usable_rows(corpus.table, store, lambda line: None).rows.reset_index(drop=True)
        X = store.read(rows["segment_id"], layer)
        weighted = pd.DataFrame(X * rows["seconds"].to_numpy()[:, None])
        sums = weighted.groupby([rows["session"], rows["person"]]).sum()
        self.labels = [*sums.index]
        vectors = sums.to_numpy() / np.linalg.norm(sums.to_numpy(), axis=1, keepdims=True)
        self.sessions = np.array([session for session, _ in self.labels])
        self.cosines = vectors @ vectors.T
        first, second = np.triu_indices(len(self.labels), 1)
        across = self.sessions[first] != self.sessions[second]
        self.first, self.second = first[across], second[across]
        truth = [corpus.people[label] for label in self.labels]
        self.same = np.array(truth)[self.first] == np.array(truth)[self.second]

    def trials(self, threshold: float) -> Trials:
        """Return all pairs, linked above a threshold."""
        ranks = self.cosines[self.first, self.second]
        worth = 100 * (ranks - threshold)  # within the bounds of `partition`
        odds = pair_matrix(self.first, self.second, worth, len(self.labels))
        clusters = partition(odds, self.sessions, np.full(len(self.labels), ""))
        is_linked = clusters[self.first] == clusters[self.second]
        sessions = np.stack([self.sessions[self.first], self.sessions[self.second]], axis=1)
        return Trials(sessions, self.same, is_linked, ranks)

    def best_threshold(self) -> float:
        """Return the threshold of the best F1."""
        grid = np.quantile(self.cosines[self.first, self.second], np.linspace(0.8, 1, 81))
        return float(max(grid, key=lambda t: shares(self.trials(t), None)[2]))


def shares(trials: Trials, weights: np.ndarray | None) -> tuple[float, float, float]:
    """Return precision, recall and F1."""
    w = np.ones(len(trials.same)) if weights is None else weights
    right = float(w[trials.same & trials.linked].sum())
    claimed, there = float(w[trials.linked].sum()), float(w[trials.same].sum())
    precision = right / claimed if claimed else np.nan
    recall = right / there if there else np.nan
    return precision, recall, 2 * right / (claimed + there) if claimed + there else np.nan


def measures(trials: Trials, draws: int = 1) -> dict[str, str]:
    """Return the shares with their intervals, and the area under precision and recall."""
    rng, names = np.random.default_rng(SEED), np.unique(trials.sessions)
    codes = np.searchsorted(names, trials.sessions)
    drawn = []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        drawn.append(shares(trials, times[codes].prod(axis=1)))
    right = (trials.same & trials.linked).sum() / draws
    counts = [max(1, round(part.sum() / draws)) for part in (trials.linked, trials.same)]
    wide = [wilson(min(round(right), count), count) for count in counts]
    wide.append(tuple(2 * p * r / max(p + r, 1e-9) for p, r in zip(*wide, strict=True)))
    row = {}
    for number, name in enumerate(("precision", "recall", "f1")):
        low, high = percentiles(np.array(drawn)[:, number])
        low, high = min(low, wide[number][0]), max(high, wide[number][1])
        row[name] = f"{100 * shares(trials, None)[number]:.1f} ({100 * low:.0f}-{100 * high:.0f})"
    order = average_precision_score(trials.same, trials.ranks)
    return row | {"order": f"{order:.3f}", "pairs": str(int(trials.same.sum()))}


def together(parts: list[Trials]) -> Trials:
    """Return the trials of several draws as one."""
    return Trials(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def identities(corpus: Corpus, share: float, out: Path) -> Iterator[Path | None]:
    """Yield files that name a share of the labels, or None."""
    labels = sorted(corpus.people)
    for draw in range(DRAWS if share else 1):
        rng = np.random.default_rng([SEED, draw])
        chosen = rng.choice(len(labels), round(share * len(labels)), replace=False)
        rows = [(*labels[k], corpus.people[labels[k]]) for k in sorted(chosen)]
        path = out / "identity.csv"
        columns = ["session", "speaker", "person"]
        pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
        yield path if share else None


def pair_rows(encoder: str, corpus: Corpus, development: Corpus, out: Path) -> Iterator[dict]:
    """Yield the rows of ``links.csv`` of an encoder."""
    rng = np.random.default_rng(SEED)
    for same_id in (0.99, 0.0):
        for share in SHARES:
            draws = [
                linked(corpus, identity=file, same_id=same_id)
                for file in identities(corpus, share, out)
            ]
            unsure = np.mean([len(links.unsure) for links in draws])
            head = {"encoder": encoder, "ids": "yes" if same_id else "no", "known": share}
            head["layers"] = "/".join(sorted({str(links.facts["layer"]) for links in draws}))
            weak = np.mean([bool(links.facts["weakness"]) for links in draws])
            for rule in ("link", "guess", "random"):
                trials = together([trials_of(links, corpus, rule, rng) for links in draws])
                facts = {"unsure": f"{unsure:.1f}", "nothing_claimed": f"{weak:.1f}"}
                yield head | {"rule": rule} | measures(trials, len(draws)) | facts
    layer = linked(development).facts["layer"]
    threshold = Centroids(development, layer).best_threshold()
    head = {"encoder": encoder, "ids": "no", "known": 0.0, "layers": str(layer)}
    facts = {"unsure": "0.0", "nothing_claimed": "0.0"}
    yield head | {"rule": "centroid"} | measures(Centroids(corpus, layer).trials(threshold)) | facts
    trials = trials_of(linked(corpus), corpus, "ids", rng)
    yield head | {"ids": "yes", "layers": "", "rule": "ids"} | measures(trials) | facts


def exchanged(corpus: Corpus) -> Iterator[tuple[Corpus, set[tuple[str, str]]]]:
    """Yield the corpus with two ids exchanged in one session, and which ids are several people."""
    sessions = sorted({session for session, _ in corpus.people})
    for session in sessions:
        ids = sorted(speaker for name, speaker in corpus.people if name == session)
        if sum(series((name, "")) == series((session, "")) for name in sessions) < 2:
            continue
        for pair in combinations(ids, 2):
            swap = dict(zip(pair, pair[::-1], strict=True))
            labels = zip(corpus.table["session"], corpus.table["speaker"], strict=True)
            renamed = [
                f"{name}_{swap.get(local_speaker(name, label), local_speaker(name, label))}"
                if name == session
                else label
                for name, label in labels
            ]
            people = {
                (name, swap.get(speaker, speaker) if name == session else speaker): person
                for (name, speaker), person in corpus.people.items()
            }
            yield (
                Corpus(corpus.table.assign(speaker=renamed), corpus.store, people),
                several(people),
            )


def several(people: dict[tuple[str, str], str]) -> set[tuple[str, str]]:
    """Return the ids (series, speaker) that are several people."""
    persons: dict[tuple[str, str], set[str]] = {}
    for label, person in people.items():
        persons.setdefault((series(label), label[1]), set()).add(person)
    return {key for key, names in persons.items() if len(names) > 1}


def least_of_ids(pairs: pd.DataFrame, values: np.ndarray) -> dict[tuple[str, str], float]:
    """Return {(series, id): the least value of two of its labels}."""
    least: dict[tuple[str, str], float] = {}
    for a, b, value in zip(*ends_of(pairs), values, strict=True):
        if series(a) == series(b) and a[1] == b[1]:
            key = (series(a), a[1])
            least[key] = min(value, least.get(key, np.inf))
    return least


def series_row(encoder: str, corpus: Corpus, layer: int) -> dict[str, str]:
    """Return an encoder's row of ``links_series.csv``."""
    cosines = Centroids(corpus, layer)
    number = {label: k for k, label in enumerate(cosines.labels)}
    rows, areas = [], []
    for plant, wrong in exchanged(corpus):
        links = linked(plant)
        reported = {*zip(links.series["series"], links.series["speaker"], strict=True)}
        # the plain cosine of a label is that of whoever has its id there now
        real = {
            (s, person): label[1] for label, person in corpus.people.items() for s in [label[0]]
        }
        ends = [
            [number[label[0], real[label[0], plant.people[label]]] for label in end]
            for end in ends_of(links.pairs)
        ]
        probability = least_of_ids(links.pairs, links.pairs["probability"].fillna(0.0).to_numpy())
        cosine = least_of_ids(links.pairs, cosines.cosines[ends[0], ends[1]])
        truth = [key in wrong for key in probability]
        areas.append(
            [
                average_precision_score(truth, [-each[key] for key in probability])
                for each in (probability, cosine)
            ]
            + [np.mean(truth)]
        )
        rows += [(*key, key in wrong, key in reported) for key in probability]
    table = pd.DataFrame(rows, columns=["series", "id", "wrong", "told"])
    link_area, cosine_area, chance = np.mean(areas, axis=0)
    return {
        "encoder": encoder,
        "exchanges": str(len(areas)),
        "told": share_over_ids(table[table["wrong"]], "told"),
        "told_rightly": share_over_ids(table[table["told"]], "wrong"),
        "false_alarms": share_over_ids(table[~table["wrong"]], "told"),
        "order_link": f"{link_area:.3f}",
        "order_centroid": f"{cosine_area:.3f}",
        "order_random": f"{chance:.3f}",
    }


def share_over_ids(rows: pd.DataFrame, column: str) -> str:
    """Return a share in per cent, its count, and its interval with ids drawn."""
    if not len(rows):
        return ""
    groups = [part[column].to_numpy() for _, part in rows.groupby(["series", "id"])]
    rng = np.random.default_rng(SEED)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = [groups[k] for k in rng.integers(len(groups), size=len(groups))]
        drawn.append(np.concatenate(chosen).mean())
    low, high = percentiles(np.array(drawn))
    return f"{100 * rows[column].mean():.1f} ({100 * low:.0f}-{100 * high:.0f}) of {len(rows)}"


def main(meetings: Path, development: Path, out: Path, encoders: str) -> None:
    """Write both tables."""
    out.mkdir(parents=True, exist_ok=True)
    pairs, exchanges = [], []
    for encoder in encoders.split(","):
        corpus, other = (read(folder, encoder, out) for folder in (meetings, development))
        pairs += pair_rows(encoder, corpus, other, out)
        exchanges.append(series_row(encoder, corpus, linked(other).facts["layer"]))
    for name, rows in (("links.csv", pairs), ("links_series.csv", exchanges)):
        pd.DataFrame(rows).to_csv(out / name, index=False, lineterminator="\n")
        print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Who is who over several meetings.")
    parser.add_argument("meetings", type=Path)
    parser.add_argument("development", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoders", default="small,mfcc")
    main(**vars(parser.parse_args()))
