"""Kill what a Ray runs on: ``python tests/robustness/campaigns/machines.py [KILLS] [SEED]``.

Two Ray nodes on this machine run one extraction after another, each with its own driver, while
processes are killed with ``kill -9``: workers in the middle of a unit and, every third time, a node
with all its processes, which is then replaced. Sometimes the driver is killed as well, and the same
command resumes. After each kill, what is committed is read back and compared bit for bit with what
was seen before and with a plain run on this machine; at the end every row must be there once, and
nothing half-written may be left. A unit that was hit four times may be given up: it must be named,
with exit code 3, and the same command must complete it. Then two drivers work on one store: the
second must be told who holds the lock, and completes the store after the first has ended. Exit code
1 if anything is lost, changed, wrong, doubled, unreadable or unfinished.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from kills import BAD
from started import Started
from victims import Items, Store, make_inputs

sys.path.append(str(Path(__file__).parents[2]))
from ray_cluster import RayOfTwoNodes, start_two_nodes

from spk.extract import FeatureStore

# Each segment is a batch of its own, so that the bits equal those of a run without units. This
# encoder loads the fastest, so that most of the time there is a unit to kill.
EXTRACT = (
    "spk-extract {0}/many.csv out --audio-root {0}/wav --encoder mfcc --workers 0 --device cpu "
    "--batch-seconds 0.1"
)
RAY = " --engine ray --ray-address {0} --unit-minutes {1}"
MINUTES = 0.05  # of audio in a unit: 24 segments
PER_RUN = 10  # most kills of one extraction
DONE = 3  # exit code of a whole run: some segments are silent
SHOWN = ("kills", "workers", "nodes", "drivers", "runs", "lost tries", "given up")
ENOUGH = 3  # broken promises after which to stop
ROWS = 900


class Machines:
    """Extractions on a Ray cluster whose processes are killed."""

    def __init__(self, two: RayOfTwoNodes, inputs: Path, folder: Path, rng: random.Random) -> None:
        self._two, self._inputs, self._folder, self._rng = two, inputs, folder, rng
        self.store = Store("on Ray", lambda inputs, _: EXTRACT.format(inputs), done=DONE)
        self.sums: Counter = Counter()
        self.findings: list[str] = []
        alone = folder / "alone"
        alone.mkdir()
        words = self.store.words(inputs, 0)
        if Started(words, alone, folder / "log", real=True).end() != DONE:
            sys.exit(f"the plain run failed: {(folder / 'log.err').read_text()}")
        self._reference, self._whole = self.store.look(alone), self.store.whole(alone)

    def start(self, place: Path, log: str = "log") -> Started:
        """Start a driver as a separate process, since Ray ends forks of this one."""
        words = EXTRACT.format(self._inputs) + RAY.format(self._two.address, MINUTES)
        return Started(words.split(), place, self._folder / log, real=True)

    def run(self, count: int) -> None:
        """Kill `count` workers and nodes, over as many extractions as needed."""
        while self.sums["kills"] < count and len(self.findings) < ENOUGH:
            place, known = self._folder / str(self.sums["runs"]), Items()
            place.mkdir()
            driver = self.start(place)
            for _ in range(min(PER_RUN, count - self.sums["kills"])):
                if not self.kill(place, known, driver):
                    break
                if not self._rng.randrange(10) and driver.code is None:
                    driver.send(signal.SIGKILL)
                    driver.end()
                    self.sums["drivers"] += 1
                    self.look(place, known)
                    driver = self.start(place)
            self.finish(place, known, driver)
            self.sums["runs"] += 1
            told = ", ".join(f"{self.sums[name]} {name}" for name in SHOWN)
            print(told, flush=True)
            shutil.rmtree(place)

    def kill(self, place: Path, known: Items, driver: Started) -> bool:
        """Kill a worker in a unit, or a node; return whether the driver was still working."""
        while not (busy := self._two.workers()):
            if driver.code is not None:
                return False
            time.sleep(0.01)
        time.sleep(self._rng.uniform(0, 2))
        self.look(place, known)
        node = self.sums["kills"] % 3 == 2
        if not node and not (busy := self._two.workers()):
            return driver.code is None
        if node:
            self._two.tell("kill a node")
        else:
            try:
                os.kill(self._rng.choice(busy), signal.SIGKILL)
            except ProcessLookupError:
                return driver.code is None
        self.sums.update(kills=1, **{"nodes" if node else "workers": 1})
        self.look(place, known)
        if node:
            self._two.tell("add a node")
        return driver.code is None

    def finish(self, place: Path, known: Items, driver: Started) -> None:
        """Let a driver finish, and run the command again if a unit was given up."""
        code, told = self.end(driver)
        while "failed: " in told and code == DONE:
            self.sums["given up"] += told.count("failed: ")
            self.look(place, known)
            code, told = self.end(self.start(place))
        self.look(place, known)
        if code != DONE:
            self.found("unfinished", f"exit code {code}: {told[-500:]!r}")
            return
        ids = [
            name
            for shard in FeatureStore.open(place / "out").shards
            for name in FeatureStore.open(shard.path).ids().tolist()
        ]
        if len(ids) != len(set(ids)):
            self.found("wrong", "a segment has two rows")
        whole = self.store.whole(place)
        differ = [n for n in {*whole, *self._whole} if whole.get(n) != self._whole.get(n)]
        if differ:
            self.found("unfinished", f"{len(differ)} differ, first {min(differ)}")
        if left := self.store.torn(place):
            self.found("unclean", f"{len(left)} files are left")

    def end(self, driver: Started) -> tuple[int, str]:
        """Wait for a driver to end; return its exit code and what it printed to standard error."""
        code = driver.end()
        last = driver.log.read_text()
        self.sums["lost tries"] += sum(map(int, re.findall(r"(\d+) tries of units were", last)))
        return code, driver.told()

    def look(self, place: Path, known: Items) -> None:
        """Compare what is committed with what was seen before and with the plain run."""
        try:
            found = self.store.look(place)
        except Exception as problem:
            self.found("unreadable", repr(problem))
            return
        sides = {
            "lost": known.keys() - found.keys(),
            "changed": {n for n in known.keys() & found.keys() if known[n] != found[n]},
            "wrong": {n for n, digest in found.items() if self._reference.get(n) != digest},
        }
        for what, names in sides.items():
            if names:
                self.found(what, f"{len(names)}, first {min(names)}")
        known.update(found)

    def two_drivers(self) -> None:
        """Start a second driver on a store in use; it must refuse, and complete it afterwards."""
        place, known = self._folder / "two", Items()
        place.mkdir()
        first = self.start(place)
        while not self.store.files(place) and first.code is None:
            time.sleep(0.01)
        first.send(signal.SIGSTOP)  # so that it does not finish before the second has started
        second = self.start(place, "second")
        code, told = second.end(), second.told()
        if code != 1 or f'writing is locked by {{"pid": {first.pid},' not in told:
            self.found("unclean", f"the second driver ended with {code}: {told[-500:]!r}")
        self.look(place, known)
        first.send(signal.SIGKILL)
        first.end()
        self.look(place, known)
        before = len(known)
        self.finish(place, known, self.start(place))
        print(f"two drivers: the second was told, and went on at {before} of {len(known)} rows")

    def found(self, what: str, told: str) -> None:
        """Record a broken promise."""
        self.sums[what] += 1
        self.findings.append(f"FOUND {what}: {told}")
        print(self.findings[-1], flush=True)


def main(kills: int = 50, seed: int = 0, rows: int = ROWS) -> int:
    """Kill processes, and print the figures; return the number of faults."""
    folder, begun = Path(tempfile.mkdtemp(prefix="machines-")), time.perf_counter()
    (folder / "ray").mkdir()
    make_inputs(folder / "inputs", rows)
    with start_two_nodes(folder / "ray") as two:
        os.environ.update(two.environment)  # which the drivers inherit
        two.set_fault("slow.flac")  # so that units last while other processes restart
        work = Machines(two, folder / "inputs", folder, random.Random(seed))
        work.run(kills)
        work.two_drivers()
    print(" | ".join((*SHOWN, *BAD)))
    print(" | ".join(str(work.sums[name]) for name in (*SHOWN, *BAD)))
    spent, found = time.perf_counter() - begun, len(work.findings)
    print(f"seed {seed}, load {os.getloadavg()[0]:.0f}, {spent:.0f} s; {found or 'nothing'} found")
    shutil.rmtree(folder)
    return found


if __name__ == "__main__":
    sys.exit(bool(main(*map(int, sys.argv[1:]))))
