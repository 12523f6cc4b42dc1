"""Names in diarized meetings with real voices: each meeting is named from all the others.

Usage: ``python benchmarks/naming.py MEETINGS OUT [--encoders small,mfcc]``. MEETINGS holds ``wav``,
``TextGrid`` and ``people.csv``. Who speaks in no other meeting is a stranger. Writes
``OUT/naming.csv``, a row per encoder, state of the clusters and rule: the open-set identification
error by time with its 95 % interval over meetings, and its parts (in per cent of the speech).
``OUT/naming_trials.csv`` has a row per encoder: strangers named where 5 % are wanted, each known
person also taken out of the voices in turn, and how often names are right by their probability. The
copies under ``benchmarks/results`` are our own.

Clusters: ``true`` turns; ``split``, the two longest clusters of a meeting in two; ``mixed``, 10 %
of the turns in a wrong cluster; ``short``, 15 s of each; ``perturbed``, as of a diarizer: edges off
by 0.25 s, 5 % of the turns missed, 5 % in a wrong cluster, the longest cluster in two.

Rules, on the same vectors: ``spk``, spk name; ``segment``, each turn alone with its scores and
threshold; ``voicetag``, each turn alone, cosine of at least 0.75; ``speechlib``, the majority of a
cluster's turns in its first 60 s at that cosine, a name barred once it is taken.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from spk.classify import naming
from spk.classify.metrics import wilson
from spk.classify.naming.clusters import evidence
from spk.classify.naming.decision import name_clusters
from spk.classify.naming.error_rate import PARTS, error_seconds, error_table, labelled
from spk.classify.naming.options import NamingOptions
from spk.extract import extract
from spk.extract.store.reader import FeatureStore
from spk.manifests import make_table, read_rttm

SEED, COPIED, FIRST = 0, 0.75, 60.0
KEPT = 15.0  # s of each cluster where they are short
BINS = (0.0, 0.8, 0.95, 1.0)
WANTED = 0.05


def two_in_one(turns: pd.DataFrame, count: int) -> pd.DataFrame:
    """Divide the `count` longest clusters, every other turn."""
    seconds = (turns["end"] - turns["start"]).groupby(turns["cluster"]).sum()
    names = turns["cluster"].copy()
    for name in seconds.sort_values(ascending=False).index[:count]:
        rows = turns.index[turns["cluster"] == name]
        names[rows[1::2]] = f"{name}-2"
    return turns.assign(cluster=names)


def in_wrong_cluster(turns: pd.DataFrame, share: float, rng: np.random.Generator) -> pd.DataFrame:
    """Put a share of the turns into another cluster of the meeting."""
    names = turns["cluster"].to_numpy(str).copy()
    everybody = np.unique(names)
    for row in np.flatnonzero(rng.random(len(turns)) < share):
        names[row] = rng.choice(everybody[everybody != names[row]])
    return turns.assign(cluster=names)


def shortened(turns: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Keep of each cluster the first turns, up to `KEPT` s."""
    seconds = turns["end"] - turns["start"]
    before = seconds.groupby(turns["cluster"]).cumsum() - seconds
    return turns[before < KEPT]


def perturbed(turns: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Return turns as a diarizer might have them."""
    turns = two_in_one(in_wrong_cluster(turns, 0.05, rng), 1)
    turns = turns[rng.random(len(turns)) >= 0.05]
    start = (turns["start"] + rng.normal(0, 0.25, len(turns))).clip(lower=0).round(3)
    end = np.maximum(turns["end"] + rng.normal(0, 0.25, len(turns)), start + 0.1).round(3)
    return turns.assign(start=start, end=end)


STATES: dict[str, Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]] = {
    "true": lambda turns, rng: turns,
    "split": lambda turns, rng: two_in_one(turns, 2),
    "mixed": lambda turns, rng: in_wrong_cluster(turns, 0.1, rng),
    "short": shortened,
    "perturbed": perturbed,
}


def features(rows: pd.DataFrame, encoder: str, meetings: Path, out: Path) -> FeatureStore:
    """Extract spans of meetings; the same span is done once."""
    spans = zip(rows["session"], rows["start"], rows["end"], strict=True)
    table = rows.assign(
        segment_id=[f"{s} {a:.4f} {b:.4f}" for s, a, b in spans],
        audio=rows["session"] + ".flac",
        speaker="x",
    ).drop_duplicates("segment_id")
    names = ["segment_id", "audio", "start", "end", "speaker", "session"]
    where = {"audio_root": meetings / "wav", "encoder": encoder, "store_dtype": "float32"}
    return extract(table[names], out / f"spans-{encoder}", log=lambda line: None, **where)


def read(store: FeatureStore, rows: pd.DataFrame, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows have features (n,) bool, and their vectors."""
    spans = zip(rows["session"], rows["start"], rows["end"], strict=True)
    ids = np.array([f"{s} {a:.4f} {b:.4f}" for s, a, b in spans])
    have = np.isin(ids, store.ids().astype(str))
    return have, store.read(ids[have], layer)


def by_spk(voices, turns, store) -> list[str]:
    """Name turns by `spk name`."""
    segments = evidence(turns)
    have, X = read(store, segments, voices.layer)
    named = name_clusters(voices, turns, segments[have].reset_index(drop=True), X)
    return named.turns["name"].tolist()


def by_segment(voices, turns, store) -> list[str]:
    """Name each turn alone, with the same scores, calibration and threshold."""
    have, X = read(store, turns, voices.layer)
    seconds = (turns["end"] - turns["start"]).to_numpy()[have]
    logs = voices.calibration.calibrator.log_probabilities(voices.scorer.scores(X), seconds)
    threshold = voices.calibration.threshold(WANTED)
    names = np.full(len(turns), "unknown", dtype=object)
    best = np.array(voices.names, dtype=object)[logs[:, :-1].argmax(axis=1)]
    names[have] = np.where(np.exp(logs[:, :-1].max(axis=1)) >= threshold, best, "unknown")
    return names.tolist()


def copied_cosine(voices, turns, store) -> list[str]:
    """Return each turn's best person by the cosine of plain means, at least `COPIED`."""
    have, X = read(store, turns, voices.layer)
    sums = voices.stretches
    models = np.stack([sums.of(sums.persons == name).mean() for name in voices.names])
    cosines = X @ models.T
    cosines /= np.linalg.norm(X, axis=1)[:, None] * np.linalg.norm(models, axis=1)
    names = np.full(len(turns), "unknown", dtype=object)
    best = np.array(voices.names, dtype=object)[cosines.argmax(axis=1)]
    names[have] = np.where(cosines.max(axis=1) >= COPIED, best, "unknown")
    return names.tolist()


def by_majority(voices, turns, store) -> list[str]:
    """Name clusters by the majority of their first turns; a taken name is barred."""
    rows = turns.assign(vote=copied_cosine(voices, turns, store))
    names: dict[str, str] = {}
    for cluster in rows["cluster"].unique():
        part = rows[rows["cluster"] == cluster]
        seconds = (part["end"] - part["start"]).cumsum()
        votes = Counter(part["vote"][(seconds <= FIRST) | (seconds == seconds.iloc[0])])
        free = [vote for vote, _ in votes.most_common() if vote not in names.values()]
        names[cluster] = next((vote for vote in free if vote != "unknown"), "unknown")
    return rows["cluster"].map(names).tolist()


RULES = {
    "spk": by_spk,
    "segment": by_segment,
    "voicetag": copied_cosine,
    "speechlib": by_majority,
}


def measure(truth: pd.DataFrame, turns: pd.DataFrame, names: list[str], enrolled: list[str]):
    """Return the seconds of each part of the error."""
    named = turns.assign(cluster=names)
    people = truth.assign(cluster=truth["person"])
    return error_seconds(labelled(people, {*enrolled}), labelled(named, {*enrolled}))


def states_of(turns: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the turns of all meetings in each state."""
    made = {}
    for state, make in STATES.items():
        rng = np.random.default_rng(SEED)
        parts = [make(part.copy(), rng) for _, part in turns.groupby("session")]
        order = ["session", "start", "end", "cluster"]
        made[state] = pd.concat(parts).sort_values(order, kind="stable", ignore_index=True)
    return made


def row_of(encoder: str, state: str, rule: str, rows: dict[str, dict[str, float]]) -> dict:
    """Return a line of ``naming.csv``, shares in per cent of the reference's speech."""
    whole = error_table(rows).iloc[-1]
    shares = {part: f"{100 * whole[part] / whole['speech']:.1f}" for part in PARTS}
    ends = {name: f"{100 * whole[name]:.1f}" for name in ("error", "low", "high")}
    return {"encoder": encoder, "clusters": state, "rule": rule, **ends, **shares}


def trial_row(encoder: str, trials: pd.DataFrame) -> dict:
    """Return a line of ``naming_trials.csv`` about clusters of true turns."""
    strangers, known_people = trials[~trials["known"]], trials[trials["known"]]
    taken, right = int(strangers["is_named"].sum()), int(known_people["right"].sum())
    row = {"encoder": encoder, "strangers": len(strangers), "strangers_named": taken}
    row |= {"wanted": WANTED, "known": len(known_people), "known_right": right}
    counts = ("strangers", taken, len(strangers)), ("known", right, len(known_people))
    for what, hits, count in counts:
        low, high = wilson(hits, count)
        row |= {f"{what}_low": f"{low:.3f}", f"{what}_high": f"{high:.3f}"}
    judged = trials[trials["probability"].notna()]
    for low, high in pairwise(BINS):
        part = judged[(judged["probability"] > low) & (judged["probability"] <= high)]
        share = f"{part['right'].mean():.2f} of {len(part)}" if len(part) else ""
        row[f"right_where_{low:g}_to_{high:g}"] = share
    row["probability"] = f"{judged['probability'].mean():.3f}"
    row["right"] = f"{judged['right'].mean():.3f}"
    return row


def trials_of(voices, turns, store) -> list[dict]:
    """Name the clusters of true turns as they are, and with each known speaker taken out."""
    segments = evidence(turns)
    have, X = read(store, segments, voices.layer)
    segments = segments[have].reset_index(drop=True)
    present = [name for name in sorted({*turns["cluster"]}) if name in voices.names]
    rows = []
    for away in (None, *present):
        fewer = voices if away is None else voices.remove(away)
        named = name_clusters(fewer, turns, segments, X, NamingOptions(false_accepts=WANTED))
        for row in named.clusters.to_dict("records"):
            if row["reason"] == "short" or away not in (None, row["cluster"]):
                continue
            is_enrolled, is_named = row["cluster"] in fewer.names, row["name"] in fewer.names
            right = row["name"] == row["cluster"] if is_enrolled else not is_named
            facts = {"known": is_enrolled, "is_named": is_named, "right": right}
            rows.append({**facts, "probability": row["probability"]})
    return rows


def main(meetings: Path, out: Path, encoders: str) -> None:
    """Name every meeting in every state by every rule."""
    out.mkdir(parents=True, exist_ok=True)
    table = make_table(
        read_rttm(meetings / "TextGrid"),
        audio_root=meetings / "wav",
        identity=meetings / "people.csv",
    )
    turns = table[["session", "start", "end"]].assign(
        cluster=table["speaker"], person=table["speaker"], channel="", text=""
    )
    states = states_of(turns)
    lines, trials = [], []
    for encoder in encoders.split(","):
        where = {"audio_root": meetings / "wav", "encoder": encoder}
        enrolled = extract(table, out / f"features-{encoder}", log=lambda line: None, **where)
        spans = [part for state in states.values() for part in (state, evidence(state))]
        store = features(pd.concat(spans), encoder, meetings, out)
        sums: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
        decisions = []
        for session in sorted({*table["session"]}):
            others = table[table["session"] != session]
            voices = naming.enrol(others, enrolled, log=lambda line: None)
            print(encoder, session, *voices.summary(), sep="\n  ", flush=True)
            truth = turns[turns["session"] == session]
            decisions += trials_of(voices, truth.reset_index(drop=True), store)
            for state, rows in states.items():
                here = rows[rows["session"] == session].reset_index(drop=True)
                reference = truth if state == "perturbed" else here
                for rule, name in RULES.items():
                    names = name(voices, here, store)
                    parts = measure(reference, here, names, voices.names)
                    sums.setdefault((state, rule), {})[session] = parts
        lines += [row_of(encoder, *key, rows) for key, rows in sums.items()]
        trials.append(trial_row(encoder, pd.DataFrame(decisions)))
    for name, rows in (("naming.csv", lines), ("naming_trials.csv", trials)):
        pd.DataFrame(rows).to_csv(out / name, index=False, lineterminator="\n")
        print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Names in diarized meetings with real voices.")
    parser.add_argument("meetings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoders", default="small,mfcc")
    main(**vars(parser.parse_args()))
