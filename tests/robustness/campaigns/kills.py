"""Kill and stop commands at random moments.

Usage: ``python tests/robustness/campaigns/kills.py [SCALE] [--only NAME]``.

The promise: if a command is killed at any moment, no committed feature is lost or changed, and the
next run completes it. A third of the kills (``kill -9``) come at a random moment of a run, a third
while the writer works, and a third inside a commit: as soon as something half-written is seen, or
up to half a millisecond later. After each kill, and while the writer runs, what is committed is
read back and compared bit for bit with what was seen before and with an uninterrupted run. After
two to six kills the command runs to its end, and its output must equal the uninterrupted run's.
Then SIGTERM and Ctrl-C come at random moments: they must give one line and exit code 143 or 130,
nothing may be lost, and the next run must complete. Most runs are forks (`started`); some are
separate processes, including their imports. Exit code 1 if anything is lost, changed, wrong,
unreadable, unfinished or unclean.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from started import Started, preload
from victims import Items, Victim, make_inputs, victims

KILLS = {"extraction, pooled": 100, "extraction, --frames": 100}  # the others 50
OTHERS = 50
SIGNALS = 10  # of each kind, per command
MOMENTS = ("any", "working", "commit")
HURRY = 0.0005  # s after a half-written file is seen
BEGUN = re.compile(r"manifests/cli.py\", line \d+, in main|^Aborted|^interrupted", re.MULTILINE)
LAST = "interrupted; run the same command to resume"
STOPS = {"SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
BAD = ("lost", "changed", "wrong", "unreadable", "unfinished", "unclean")
SHOWN = (
    *("kills", "own processes", "at work", "inside a commit", "rows at stake"),
    *("lost", "changed", "wrong", "unreadable", "unfinished"),
)
STOPPED = ("signals", "own processes", "at work", "by a line", "at start", *BAD)


class Campaign:
    """Runs of one command that are interrupted.

    Parameters
    ----------
    victim : the command to run
    inputs : folder that `make_inputs` has filled
    folder : working folder
    rng : draws the moments
    own : int
        One in this many runs is a separate process; 0: none.
    before : called in each fork first, to break a promise on purpose
    """

    def __init__(
        self,
        victim: Victim,
        inputs: Path,
        folder: Path,
        rng: random.Random,
        own: int = 0,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.victim, self._inputs, self._folder = victim, inputs, folder
        self._rng, self._own, self._before = rng, own, before
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
        self.slowest = 0.0  # s from a signal to the end
        self.findings: list[str] = []
        self._round = 0
        self._reference, self._whole = Items(), Items()
        slow, _ = self._undisturbed("own", real=True) if own else (0.0, 0.0)
        self._seconds, self._idle = self._undisturbed("whole")
        self._start_up = max(0.0, slow - self._seconds)  # s, of a process of its own

    def _undisturbed(self, name: str, *, real: bool = False) -> tuple[float, float]:
        """Run to the end; return the duration, and the time until it began to work, in s."""
        place = self._folder / name
        place.mkdir(parents=True)
        begun, idle = time.perf_counter(), self.victim.sign(place)
        run = self._start(place, real=real, broken=False)
        while self.victim.sign(place) == idle and run.code is None:
            time.sleep(0.001)
        waited = time.perf_counter() - begun
        if run.end() not in self.victim.done:
            sys.exit(f"{self.victim.name}: the uninterrupted run failed: {run.told()}")
        spent = time.perf_counter() - begun
        run.sweep_up()
        found, whole = self.victim.look(place), self.victim.whole(place)
        if self._whole and (found, whole) != (self._reference, self._whole):
            sys.exit(f"{self.victim.name}: a fork's results are not those of a process of its own")
        self._reference, self._whole = found, whole
        return spent, waited

    def run(self, count: int, end: Callable[[Path, Items, int], bool]) -> Counter:
        """Interrupt `count` runs, in rounds that each complete one folder; return the sums."""
        self.sums: Counter = Counter()
        limit = self._round + 10 * count
        while count > 0:
            if self._round > limit:
                self._found("unfinished", f"{count} runs to end, and run after run ends by itself")
                break
            place, known = self._folder / str(self._round), Items()
            place.mkdir()
            for _ in range(min(count, self._rng.randint(2, 6))):
                count -= end(place, known, count)
                if known.keys() >= self._reference.keys():
                    break
            self._finish(place, known)
            shutil.rmtree(place)
            self._round += 1
        return self.sums

    def kill(self, place: Path, known: Items, left: int) -> bool:
        """Kill a run in a folder with `known` items; return whether it was still running."""
        idle, torn = self.victim.sign(place), self.victim.torn(place)
        moment, real = MOMENTS[left % len(MOMENTS)], self._is_own(left, 1)
        run = self._start(place, real=real)
        self._wait(moment, place, run, idle, real=real)
        if moment == "working" and self.victim.watched:
            self._look(place, known)
        files, worked = self.victim.files(place), self.victim.sign(place) != idle
        run.send(signal.SIGKILL)
        killed = run.end() == -signal.SIGKILL
        run.sweep_up()
        if gone := files - self.victim.files(place):
            self._found("lost", f"{len(gone)} files, first {min(gone)}", len(gone))
        self._look(place, known)
        if killed:
            self.sums.update(kills=1, **{"own processes": real, "at work": worked})
            self.sums["inside a commit"] += bool(self.victim.torn(place) - torn)
            self.sums["rows at stake"] += len(known)
        return killed

    def stop(self, number: int) -> Callable[[Path, Items, int], bool]:
        """Return a function that stops a run by a signal, and returns whether it was running."""

        def end(place: Path, known: Items, left: int) -> bool:
            idle, real = self.victim.sign(place), self._is_own(left, 4)
            run = self._start(place, real=real)
            self._wait("any" if left % 2 else "working", place, run, idle, real=real)
            worked, sent = self.victim.sign(place) != idle, time.perf_counter()
            run.send(number, group=number == signal.SIGINT)
            code = run.end()
            self.slowest = max(self.slowest, time.perf_counter() - sent)
            run.sweep_up()
            self._look(place, known)
            if code not in self.victim.done:
                self.sums.update(signals=1, **{"own processes": real, "at work": worked})
                self._judge(code, number, run, worked)
            return code not in self.victim.done

        return end

    def _is_own(self, left: int, more: int) -> bool:
        return bool(self._own) and left % max(1, self._own // more) == 1

    def _judge(self, code: int, number: int, run: Started, worked: bool) -> None:
        """Count how a stopped run has ended."""
        told = run.told()
        lines = told.splitlines()
        if code != 128 + number and not worked and not BEGUN.search(told):
            self.sums["at start"] += 1  # Python's own answer, before the command's first line
        elif code == 128 + number and lines[-1:] == [LAST] and "Traceback" not in told:
            self.sums["by a line"] += 1
        else:
            self._found("unclean", f"signal {number}, exit code {code}: {told[-3000:]!r}")

    def _start(self, place: Path, *, real: bool = False, broken: bool = True) -> Started:
        words = self.victim.words(self._inputs, self._round)
        before = self._before if broken else None
        return Started(words, place, self._folder / "log", real=real, before=before)

    def _wait(self, moment: str, place: Path, run: Started, idle: object, *, real: bool) -> None:
        """Return when the moment to interrupt has come, or the run is over."""
        begun = time.perf_counter()
        if moment == "any":
            time.sleep(self._rng.uniform(0, self._seconds + self._start_up * real))
            return
        while self.victim.sign(place) == idle and run.code is None:
            time.sleep(0.0005)
        if moment == "working":
            time.sleep(self._rng.uniform(0, 0.7 * (self._seconds - self._idle)))
            return
        seen, commits = self.victim.beats(place), self._rng.randrange(self.victim.commits)
        while run.code is None and time.perf_counter() - begun < 60:
            if new := self.victim.beats(place) - seen:
                if not commits:
                    break
                commits -= 1
                seen |= new
        time.sleep(self._rng.uniform(0, HURRY))

    def _look(self, place: Path, known: Items) -> None:
        """Compare what is committed with what was seen before and with the uninterrupted run."""
        try:
            found = self.victim.look(place)
        except Exception as problem:
            self._found("unreadable", repr(problem))
            return
        lost = known.keys() - found.keys()
        changed = [name for name in known.keys() & found.keys() if known[name] != found[name]]
        wrong = [name for name, digest in found.items() if self._reference.get(name) != digest]
        for what, names in (("lost", lost), ("changed", changed), ("wrong", wrong)):
            if names:
                self._found(what, f"{len(names)}, first {min(names)}", len(names))
        known.update(found)

    def _finish(self, place: Path, known: Items) -> None:
        """Run the command to its end; its output must equal the uninterrupted run's."""
        run = self._start(place)
        code = run.end()
        run.sweep_up()
        self._look(place, known)
        try:
            whole = self.victim.whole(place)
        except Exception as problem:  # so little is there
            whole = {repr(problem): ""}
        names = {*whole, *self._whole}
        differ = [name for name in names if whole.get(name) != self._whole.get(name)]
        if code not in self.victim.done or differ:
            what = f"exit code {code}, {len(differ)} differ, first {min(differ, default='')}"
            self._found("unfinished", f"{what}: {run.told()[-500:]!r}")

    def _found(self, what: str, told: str, count: int = 1) -> None:
        self.sums[what] += count
        self.findings.append(f"FOUND {self.victim.name}, round {self._round}, {what}: {told}")
        print(self.findings[-1], flush=True)


def row(name: str, sums: Counter, columns: tuple[str, ...]) -> str:
    """Return a row of figures."""
    return " | ".join([name, *(f"{sums[column]:,}" for column in columns)])


def main(scale: float, only: str, seed: int, own: int, rows: int) -> int:
    """Kill and stop all commands; print a row of figures each; return the number of faults."""
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    begun, found = time.perf_counter(), 0
    make_inputs(folder / "inputs", rows)
    preload()
    print(f"scale {scale:g}, seed {seed}; preload {time.perf_counter() - begun:.0f} s", flush=True)
    told, slowest = [], (0.0, "")
    for victim in victims():
        kinds = [("", KILLS.get(victim.name, OTHERS), SHOWN)]
        kinds += [(f", {name}", SIGNALS, STOPPED) for name in STOPS]
        parts = [part for part in kinds if only in victim.name + part[0] and scale * part[1] > 0.5]
        if not parts:
            continue
        rng = random.Random(f"{seed} {victim.name}")
        place = folder / victim.name.replace(" ", "-")
        campaign = Campaign(victim, folder / "inputs", place, rng, own=own)
        for name, count, columns in parts:
            end = campaign.stop(STOPS[name[2:]]) if name else campaign.kill
            sums = campaign.run(round(scale * count), end)
            told.append((f"{victim.name}{name}", sums, columns))
            print(row(*told[-1]), f"({time.perf_counter() - begun:.0f} s)", flush=True)
        slowest = max(slowest, (campaign.slowest, victim.name))
        found += len(campaign.findings)
    for columns in (SHOWN, STOPPED):
        print("\n" + " | ".join(["what", *columns]))
        some = [(name, sums) for name, sums, kind in told if kind == columns]
        some.append(("all", sum((sums for _, sums in some), Counter())))
        print("\n".join(row(name, sums, columns) for name, sums in some))
    print("\nlongest from a signal to the end: {:.1f} s, {}".format(*slowest))
    print(f"{time.perf_counter() - begun:.0f} s; {found or 'nothing'} found")
    shutil.rmtree(folder)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Kill and stop commands at random moments.")
    parser.add_argument("scale", type=float, nargs="?", default=1.0, help="1: 400 kills.")
    parser.add_argument("--only", default="", help="Part of a row's name.")
    parser.add_argument("--seed", type=int, default=0)
    help_own = "One in so many kills, and four signals, is of a process of its own; 0: none."
    parser.add_argument("--own", type=int, default=20, help=help_own)
    help_rows = "Of the table that is extracted, and of the stores that are merged."
    parser.add_argument("--rows", type=int, default=1100, help=help_rows)
    sys.exit(bool(main(**vars(parser.parse_args()))))
