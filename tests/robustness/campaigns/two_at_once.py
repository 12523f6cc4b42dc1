"""Two commands on one folder: ``python tests/robustness/campaigns/two_at_once.py [ROUNDS] [SEED]``.

Commands are started side by side, up to a third of their duration apart: two extractions into one
store, two merges, two cuts, two sweeps with different settings, two fits, two fine-tuning runs.
Each must do its work or end with one line that says why not; the result must be that of one command
alone. Then a reader repeatedly opens and reads a store while a writer commits. Then stale locks: of
a writer that was killed, and of another machine; neither may block.
"""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from disk import FIT, files
from scene import ALONE, Corpus, Told, contents, make_corpus, must, scratch, side_by_side, start

from spk.common.errors import InputError
from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter

CONFIG = {
    "schema": 1,
    "kind": "pooled",
    "encoder": "tiny",
    "revision": "0123abc",
    "layers": [0, 2],
    "pooling": "mean",
    "dim": 8,
    "dtype": "float32",
    "rate": 16000,
    "channel": "0",
}
TOLD = ("writing is locked by", "exists with other content")
BUSY = 4  # exit code of a fine-tuning run that leaves a session to another process
COLUMNS = ("rounds", "both did it", "one was told", "neither", "lost or wrong")


@dataclass(frozen=True)
class Pair:
    """Two commands on one `OUT`, and their results."""

    name: str
    lines: tuple[str, str]
    whole: Callable[[Path], dict]
    seconds: float  # duration of one alone
    truths: tuple[dict, ...]  # of each command alone


def make_pairs(corpus: Corpus, folder: Path, fleet: bool = True) -> list[Pair]:
    """Return the pairs, each with the result of one command alone."""
    store, parts = folder / "store", [folder / "part1", folder / "part2"]
    must(corpus.extract(store))
    for number, part in enumerate(parts, 1):
        must(corpus.extract(part, f"--shard {number}/2"))
    sweep = f"spk-classify sweep {corpus.table} {store} OUT --classifiers centroid,ridge --jobs 1"
    fit = f"spk-classify fit {corpus.table} {store} OUT --classifiers centroid --layers 5 --jobs 1"
    cut = f"spk-manifests cut {corpus.folder}/turns.csv OUT --audio-root {corpus.folder}/wav"
    swept = files("sweep.csv", "predictions.csv", "metrics.csv", "config.json")
    other = sweep.replace("centroid,ridge", "lda")
    lines = {
        "extract": (corpus.extract(Path("OUT")), contents),
        "merge": (f"spk-store merge {parts[0]} {parts[1]} OUT", contents),
        "cut": (f"{cut} --workers 1", files("*.wav", "segments*.csv", "cut.json")),
        "sweep": (sweep, swept),
        "fit": (fit, files("*")),
    }
    if fleet:
        line = f"spk-finetune fit {corpus.table} --audio-root {corpus.folder}/wav --log-dir OUT "
        lines["fleet"] = (line + FIT, _fleet)
    pairs = []
    for name, (line, whole) in lines.items():
        both, truths, begun = (line, line if name != "sweep" else other), [], time.perf_counter()
        for number, one in enumerate(both):
            out = folder / f"alone-{name}-{number}" / "out"
            must(one.replace("OUT", str(out)))
            truths.append(whole(out))
        spent = (time.perf_counter() - begun) / 2
        pairs.append(Pair(name, both, whole, spent, tuple(truths)))
    return pairs


def _fleet(out: Path) -> dict:
    """Return a fleet's predictions and which of its sessions are told as finished."""
    import pandas as pd

    sessions = pd.read_csv(out / "sessions.csv")[["session", "state", "test_accuracy"]]
    found = files("predictions.csv", "version_*/predictions.csv")(out)
    return {**found, "sessions": sessions.to_csv()}


def try_pair(pair: Pair, out: Path, rng: np.random.Generator, counts: Counter) -> list[str]:
    """Run a pair side by side; return the broken promises."""
    delay = float(rng.uniform(0, pair.seconds / 3))
    delays = [0.0, delay] if rng.random() < 0.7 else [0.0, 0.0]
    told = side_by_side([line.replace("OUT", str(out)) for line in pair.lines], delays)
    did = [done.code in (0, 3) and not done.trace for done in told]
    counts["rounds"] += 1
    counts["both did it"] += all(did)
    counts["one was told"] += sum(did) == 1
    counts["neither"] += not any(did)
    broken = [
        f"ended with {done.code} {done.err[-800:]!r} {done.trace[-1500:]}"
        for done, good in zip(told, did, strict=True)
        if not good and not _told(done)
    ]
    if not any(did) and not all(done.code == BUSY for done in told):
        broken.append("neither did it")
    try:
        same = pair.whole(out) in pair.truths
    except Exception as problem:
        broken.append(f"cannot be read: {problem}")
        same = False
    if not same:
        counts["lost or wrong"] += 1
        broken.append("left something else than one alone")
    return broken


def _told(done: Told) -> bool:
    if done.trace:
        return False
    return done.code == BUSY or (done.clear and any(what in done.err for what in TOLD))


def features_of(name: str) -> np.ndarray:
    """Return the features (layers, dim) that a segment of this name has."""
    return np.random.default_rng([*name.encode()]).normal(size=(2, 8)).astype(np.float32)


def write_many(path: str, seconds: float) -> None:
    """Write rows, with a commit every few rows, until the time is over."""
    end, number = time.perf_counter() + seconds, 0
    with StoreWriter(path, CONFIG, commit_rows=3) as writer:
        while time.perf_counter() < end:
            name = f"s{number}"
            values = {"duration": 1.0, "frames": 49, "audio_bytes": 9, "audio_crc32": number}
            writer.add(name, features_of(name), **values)
            number += 1
            time.sleep(0.003)


def read_many(folder: Path, seconds: float) -> tuple[Counter, list[str]]:
    """Open and read a store while it grows; every row ever seen must remain correct."""
    path, counts, broken = folder / "growing", Counter(), []
    with StoreWriter(path, CONFIG):
        pass
    writer = get_context("fork").Process(target=write_many, args=(str(path), seconds))
    start(writer)
    seen: set[str] = set()
    while writer.is_alive():
        try:
            store = FeatureStore.open(path)
            names = store.ids().tolist()
            found = np.stack([store.read(names, layer) for layer in store.layers], axis=1)
        except InputError as problem:
            counts["refused"] += 1
            broken.append(f"reader: {problem}")
            continue
        counts["reads"] += bool(names)
        counts["rows read"] += len(names)
        expected = [features_of(name) for name in names]
        if names and not np.array_equal(found, np.array(expected)):
            counts["wrong"] += 1
            broken.append("reader: another value")
        counts["lost"] += not seen <= {*names}
        seen |= {*names}
    writer.join()
    counts["rows written"] = len(FeatureStore.open(path))
    if counts["lost"]:
        broken.append("reader: a row that had been read was gone")
    return counts, broken


def hold_and_die(path: str) -> None:
    """Take a store's lock and die while holding it."""
    writer = StoreWriter(path, CONFIG)
    os.kill(os.getpid(), signal.SIGKILL)
    writer.close()


def dead_locks(folder: Path, rounds: int) -> tuple[Counter, list[str]]:
    """Leave stale locks behind; the next writer must not be blocked."""
    counts, broken = Counter(), []
    other = {"pid": 1, "host": "elsewhere", "since": "2020-01-01T00:00:00+00:00"}
    for number in range(rounds):
        path = folder / f"dead-{number}"
        killed = get_context("fork").Process(target=hold_and_die, args=(str(path),))
        start(killed)
        killed.join()
        left = json.loads((path / "lock").read_text())
        if (killed.exitcode, left["pid"]) != (-signal.SIGKILL, killed.pid):
            broken.append(f"the writer ended with {killed.exitcode} and left {left}")
        for text in (None, json.dumps(other), "no JSON\n"):
            if text is not None:
                (path / "lock").write_text(text)
            counts["locks of the dead"] += 1
            try:
                with StoreWriter(path, CONFIG):
                    counts["taken over"] += 1
            except InputError as problem:
                broken.append(f"blocked by the dead: {problem}")
    return counts, broken


def together(
    rounds: int, seed: int, folder: Path, *, fleet: bool = True, seconds: float = 10.0
) -> tuple[dict[str, Counter], dict[str, Counter], list[str]]:
    """Try each pair `rounds` times, a reader, and locks; return counts and faults."""
    rng = np.random.default_rng(seed)
    table: dict[str, Counter] = {}
    found = []
    for pair in make_pairs(make_corpus(folder / "corpus"), folder, fleet):
        counts = table.setdefault(pair.name, Counter())
        for number in range(rounds if pair.name != "fleet" else -(-rounds // 5)):
            out = folder / f"{pair.name}-{number}" / "out"
            broken = try_pair(pair, out, rng, counts)
            found += [f"{pair.name}, round {number}: {what}" for what in broken]
    reads, broken = read_many(folder, seconds)
    locks, more = dead_locks(folder, -(-rounds // 3))
    return table, {"a reader beside a writer": reads, "locks": locks}, [*found, *broken, *more]


def main(rounds: int = 30, seed: int = 1) -> int:
    """Print the counts; return the exit code."""
    with scratch("together") as folder:
        table, more, found = together(rounds, seed, folder)
    print(f"two at once: {rounds} rounds of each (fleet: a fifth), seed {seed} ({ALONE})")
    print(" " * 10 + "".join(f"{name:>15}" for name in COLUMNS))
    for name, counts in table.items():
        print(f"{name:<10}" + "".join(f"{counts[column]:>15}" for column in COLUMNS))
    for name, counts in more.items():
        print(f"{name}: " + ", ".join(f"{what} {count}" for what, count in counts.items()))
    print("\n".join(f"BROKEN {what}" for what in found) or "no promise broken", flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
