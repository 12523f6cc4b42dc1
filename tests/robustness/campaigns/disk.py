"""Disks that are full, small, read-only or gone.

Usage: ``python tests/robustness/campaigns/disk.py [ROUNDS] [SEED]``.

Each job writes to a disk of its own (a tmpfs, which needs the right to mount). Full: the free space
ends at a random write. Limit: no file may be larger than a random size (RLIMIT_FSIZE; writes then
fail with another error than on a full disk). Read-only: from the start. Gone: the job's folder is
deleted while it works. The job must end with one line, what it has left must be complete and
correct, and with enough room the same command must finish with the result of an undisturbed run.
"""

import re
import resource
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scene import ALONE, Corpus, Told, contents, make_corpus, must, remount, scratch, small_disk
from scene import typed as run

PAGE = 4096  # bytes; a tmpfs allocates whole pages
FIT = "--encoder demo --within session --max-epochs 2 --freeze-encoder-layers 4"
GONE = Told(1, "", "", "")  # output for a folder that no longer exists
COLUMNS = ("rounds", "told in a line", "with bytes", "finished", "lost or wrong", "went on to end")


@dataclass
class Job:
    """A command that writes to `OUT`.

    `whole` returns the output of a finished run, which is always the same; `part` returns what a
    stopped run has left, all of which must be part of the whole.
    """

    name: str
    line: str
    whole: Callable[[Path], dict]
    part: Callable[[Path], dict]
    truth: dict = field(default_factory=dict)
    size: int = 0  # bytes on disk
    largest: int = 0  # bytes of its largest file
    seconds: float = 0.0  # duration of a run

    def told(self, out: Path) -> Told:
        """Run it."""
        return run(self.line.replace("OUT", str(out)))


def store_parts(out: Path) -> dict:
    """Return the content of a store, or nothing if there is none yet."""
    return contents(out) if (out / "store.json").exists() else {}


def files(*names: str) -> Callable[[Path], dict]:
    """Return a function that gives the bytes of files by pattern."""

    def read(out: Path) -> dict:
        if out.is_file():
            return {"": out.read_bytes()}
        found = [path for name in names for path in out.glob(name) if path.name[0] != "."]
        return {
            str(path.relative_to(out)): path.read_bytes().replace(str(out).encode(), b"OUT")
            for path in found
        }

    return read


def packed(out: Path) -> dict:
    """Return what a packed file gives."""
    return contents(out) if out.exists() else {}


def exported(out: Path) -> dict:
    """Return what an exported file gives."""
    path = Path(f"{out}.npz")
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return {name: values.tobytes() for name, values in arrays.items()}


def make_jobs(corpus: Corpus, folder: Path, fleet: bool = True) -> list[Job]:
    """Return the jobs, each with what an undisturbed run leaves."""
    store, parts = folder / "store", [folder / "part1", folder / "part2"]
    must(corpus.extract(store))
    for number, part in enumerate(parts, 1):
        must(corpus.extract(part, f"--shard {number}/2"))
    sweep = f"spk-classify sweep {corpus.table} {store} OUT --classifiers centroid,ridge --jobs 1"
    cut = f"spk-manifests cut {corpus.folder}/turns.csv OUT --audio-root {corpus.folder}/wav"
    merge = f"spk-store merge {parts[0]} {parts[1]} OUT"
    fit = f"spk-classify fit {corpus.table} {store} OUT --classifiers centroid --layers 5 --jobs 1"
    swept = files("sweep.csv", "predictions.csv", "metrics.csv")
    clips = files("*.wav", "segments*.csv")
    jobs = [
        Job("extract", corpus.extract(Path("OUT")), contents, store_parts),
        Job("merge", merge, contents, store_parts),
        Job("pack", f"spk-store pack {store} OUT", packed, packed),
        Job("export", f"spk-store export {store} OUT.npz", exported, exported),
        Job("cut", f"{cut} --workers 1", clips, clips),
        Job("sweep", sweep, swept, swept),
        Job("fit", fit, files("*"), files("*")),
    ]
    if fleet:
        line = f"spk-finetune fit {corpus.table} --audio-root {corpus.folder}/wav --log-dir OUT "
        named = files("predictions.csv", "version_*/predictions.csv")
        jobs.append(Job("fleet", line + FIT, named, named))
    for job in jobs:
        out = folder / f"whole-{job.name}" / "out"
        out.parent.mkdir()
        begun = time.perf_counter()
        done = job.told(out)
        job.seconds = time.perf_counter() - begun
        if done.trace or done.code not in (0, 3):
            raise RuntimeError(f"{job.name}: {done.code} {done.err} {done.trace}")
        job.truth = job.whole(out)
        sizes = [path.stat().st_size for path in out.parent.rglob("*") if path.is_file()]
        job.largest = max(sizes)
        job.size = sum(-(-size // PAGE) * PAGE for size in sizes)
    return jobs


def judge(job: Job, out: Path, done: Told, counts: Counter) -> list[str]:
    """Judge a run that may have been stopped, by its line and what it has left."""
    broken = []
    finished = done.code in (0, 3) and not done.trace
    counts["rounds"] += 1
    counts["finished"] += finished
    counts["told in a line"] += done.clear and not finished
    counts["with bytes"] += (
        re.search(r"expected \d+ bytes|room for \d+ bytes", done.err) is not None
    )
    if not done.clear:
        broken.append(f"ended with {done.code} and {done.err[-800:]!r} {done.trace[-1500:]}")
    try:
        left = job.part(out)
    except Exception as problem:
        left = {"": f"cannot be read: {problem}"}
    wrong = [name for name, found in left.items() if job.truth.get(name) != found]
    if finished and left != job.truth:
        wrong += sorted({*job.truth} - {*left}) or ["something"]
    counts["lost or wrong"] += len(wrong)
    if wrong:
        broken.append(f"left {len(wrong)} of {len(left)} lost or wrong, first {wrong[0]!r}")
    return broken


def go_on(job: Job, out: Path, before: Told, counts: Counter) -> list[str]:
    """Run the job again with nothing in its way; it must give the result of an undisturbed run.

    Finished output is not written again: `pack`, `export` and `fit` refuse an existing name.
    """
    done = before if before.code in (0, 3) and not before.trace else job.told(out)
    try:
        same = done.code in (0, 3) and job.whole(out) == job.truth
    except Exception:
        same = False
    counts["went on to end"] += same
    return [] if same else [f"went on to {done.code} {done.err[-800:]!r} {done.trace[-1500:]}"]


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes; Python ignores SIGXFSZ."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full(job: Job, rng: np.random.Generator, counts: Counter) -> list[str]:
    """Let the disk fill up at a random write, then make room."""
    with small_disk(3 * job.size + (1 << 20)) as disk:
        out, ballast = disk / "out", disk / "ballast"
        free = shutil.disk_usage(disk).free - int(rng.integers(0, job.size + PAGE))
        ballast.write_bytes(bytes(max(free, 0)))
        done = job.told(out)
        broken = judge(job, out, done, counts)
        ballast.unlink()
        return broken + go_on(job, out, done, counts)


def limit(job: Job, rng: np.random.Generator, counts: Counter) -> list[str]:
    """Limit files to a random size, then remove the limit."""
    with scratch("limit") as folder:
        with limited(int(np.exp(rng.uniform(0, np.log(job.largest))))):
            done = job.told(folder / "out")
        broken = judge(job, folder / "out", done, counts)
        return broken + go_on(job, folder / "out", done, counts)


def read_only(job: Job, _rng: np.random.Generator, counts: Counter) -> list[str]:
    """Make the disk read-only, then writable."""
    with small_disk(3 * job.size + (1 << 20)) as disk:
        remount(disk, "ro")
        done = job.told(disk / "out")
        broken = judge(job, disk / "out", done, counts)
        if done.code != 1:
            broken.append(f"ended with {done.code} on a disk that cannot be written to")
        remount(disk, "rw")
        return broken + go_on(job, disk / "out", done, counts)


def gone(job: Job, rng: np.random.Generator, counts: Counter) -> list[str]:
    """Delete the job's folder and its parent at a random moment after the first file appeared."""
    with scratch("gone") as folder:
        out, ended = folder / "disk" / "out", threading.Event()
        out.parent.mkdir()
        later = float(rng.uniform(0, 0.3 * job.seconds)) if rng.random() < 0.7 else 0.0

        def remove() -> None:
            while not ended.is_set() and not any(out.parent.rglob("*")):
                time.sleep(0.0002)
            time.sleep(later)
            shutil.rmtree(out.parent, ignore_errors=True)

        remover = threading.Thread(target=remove)
        remover.start()
        done = job.told(out)
        ended.set()
        remover.join()
        finished = done.code in (0, 3) and not done.trace
        counts["rounds"] += 1
        counts["finished"] += finished
        counts["told in a line"] += done.clear and not finished
        broken = [] if done.clear else [f"{done.code} {done.err[-800:]!r} {done.trace[-1500:]}"]
        left = job.part(out) if finished and out.parent.exists() else job.truth
        if left != job.truth:  # written again by a job that did not notice
            counts["lost or wrong"] += 1
            broken.append(f"ended well with {len(left)} of {len(job.truth)} parts there")
        shutil.rmtree(out.parent, ignore_errors=True)
        return broken + go_on(job, out, GONE, counts)


KINDS = {"full": full, "limit": limit, "read-only": read_only, "gone": gone}


def disks(
    rounds: int, seed: int, folder: Path, *, kinds: tuple[str, ...] = tuple(KINDS), fleet=True
) -> tuple[dict[tuple[str, str], Counter], list[str]]:
    """Try each job `rounds` times on each kind of disk; return counts and broken promises."""
    rng = np.random.default_rng(seed)
    jobs = make_jobs(make_corpus(folder / "corpus"), folder, fleet)
    table: dict[tuple[str, str], Counter] = {}
    found = []
    for kind in kinds:
        for job in jobs:
            counts = table.setdefault((kind, job.name), Counter())
            times = 1 if kind == "read-only" else rounds if job.name != "fleet" else -(-rounds // 5)
            for number in range(times):
                broken = KINDS[kind](job, rng, counts)
                found += [f"{kind} disk, {job.name}, round {number}: {what}" for what in broken]
    return table, found


def show(table: dict[tuple[str, str], Counter]) -> str:
    """Return counts as text, a row per kind of disk and job."""
    lines = [" " * 20 + "".join(f"{name:>16}" for name in COLUMNS)]
    for (kind, job), counts in table.items():
        lines.append(f"{kind:<10}{job:<10}" + "".join(f"{counts[name]:>16}" for name in COLUMNS))
    return "\n".join(lines)


def main(rounds: int = 20, seed: int = 1) -> int:
    """Print the counts; return the exit code."""
    with scratch("disks") as folder:
        try:
            table, found = disks(rounds, seed, folder)
        except PermissionError as problem:
            print(f"disk: {problem}; only limits and folders that go are tried")
            table, found = disks(rounds, seed, folder / "more", kinds=("limit", "gone"))
    print(f"disk: {rounds} rounds of each (fleet: a fifth), seed {seed} ({ALONE})")
    print(show(table))
    print("\n".join(f"BROKEN {what}" for what in found) or "no promise broken", flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
