"""What the engine for several machines costs: units a second, processor time, slots, memory.

Usage: ``python benchmarks/engine.py OUT.csv [--seconds 20] [--units 6] [--rounds 2]``. A unit of
the first part, ``work``, is arithmetic in Python that takes so many seconds of processor time,
measured before; its result is written under a temporary name by who did it and renamed by who owns
the job, as shards are. The sides take turns in one run: a plain loop, two processes
(`concurrent.futures`), Ray with two slots. Processor time is that of the process and of all that it
has started, Ray's own included; start-up is in columns of its own. ``tiny`` are units without work:
what a unit itself costs, which is then told as a part of a minute.

``scaling``: units that sleep, on one to eight simulated nodes (processes of this machine) of eight
slots each. Ideal is the time that the sleeping alone takes. ``memory``: the resident memory of the
driver while 100,000 units without work go by.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import psutil

from spk.common.engine.ray_engine import run_on_ray
from spk.common.engine.ray_session import ray_session
from spk.common.engine.work import Job, Unit

MINUTE = 60.0  # s of work, of the unit that overhead is told for
NAP = 2.0  # s that a unit of the scaling sleeps
SLOTS = 8  # of a simulated node
COLUMNS = ("part", "side", "round", "units", "unit_s", "wall_s", "cpu_s", "start_wall_s")
COLUMNS += ("start_cpu_s", "slots", "ideal_wall_s", "rss_mb", "load", "cores")
Row = dict[str, object]


def work(loops: int) -> int:
    """Return what so many steps of arithmetic give; one thread, no libraries."""
    value = 1
    for step in range(loops):
        value = (value * 1103515245 + step) & 0x7FFFFFFF
    return value


def loops_for(seconds: float) -> int:
    """Return how many steps take so many s of processor time on this machine."""
    begun, loops = time.process_time(), 2_000_000
    work(loops)
    return int(loops * seconds / (time.process_time() - begun))


def do_unit(shared: tuple[str, int], name: str) -> str:
    """Do a unit and leave its result under a temporary name, synced to disk; return that."""
    folder, loops = shared
    path = f"{folder}/.writing-{name}-{os.getpid()}"
    with open(path, "w") as file:
        file.write(str(work(loops)))
        file.flush()
        os.fsync(file.fileno())
    return path


def publish(folder: str, unit: Unit, path: str) -> None:
    """Give a unit's result its name."""
    os.replace(path, f"{folder}/{unit.name}")


def nap(seconds: float, name: str) -> str:
    """Do a unit that sleeps."""
    time.sleep(seconds)
    return name


def nothing(shared: None, name: str) -> str:
    """Do a unit without work."""
    return name


def make_units(count: int) -> Iterator[Unit]:
    """Yield units, one by one."""
    return (Unit(str(number), str(number), str(number)) for number in range(count))


def processor_time() -> float:
    """Return the s of processor time of this process and of all that it has started."""
    spent, ours = 0.0, psutil.Process()
    for process in [ours, *ours.children(recursive=True)]:
        try:
            spent += sum(process.cpu_times()[:4])  # its ended children's, too
        except psutil.NoSuchProcess:
            continue
    return spent


def plain(job: Job) -> None:
    """Do the units one after another in this process."""
    for unit in job.units:
        job.publish(unit, job.function(job.shared, unit.payload))


def in_processes(pool: ProcessPoolExecutor, job: Job) -> None:
    """Do the units in two processes, as many at once as Ray is sent."""
    units, flying = iter(job.units), {}
    while True:
        for unit in islice(units, 2 - len(flying)):
            flying[pool.submit(job.function, job.shared, unit.payload)] = unit
        if not flying:
            return
        for done in wait(flying, return_when=FIRST_COMPLETED).done:
            job.publish(flying.pop(done), done.result())


def on_ray(ray: object, job: Job) -> None:
    """Do the units as tasks of Ray."""
    stopped, failed = run_on_ray(ray, job, lambda: False)
    if stopped or failed:
        sys.exit(f"units failed, first {failed[0].reason}" if failed else "stopped")


def timed(run: Callable[[Job], None], make_job: Callable[[int], Job], warm: int, count: int) -> Row:
    """Return what `count` units take, after `warm` others that have the processes begin."""
    if warm:
        run(make_job(warm))
    wall, spent = time.perf_counter(), processor_time()
    run(make_job(count))
    return {
        "units": count,
        "wall_s": round(time.perf_counter() - wall, 3),
        "cpu_s": round(processor_time() - spent, 3),
        "load": os.getloadavg()[0],
    }


def side(name: str, make_job: Callable[[int], Job], count: int) -> Row:
    """Return what a side takes for its start and for `count` units."""
    wall, spent = time.perf_counter(), processor_time()

    def begun() -> Row:
        begun_cpu = processor_time() - spent
        times = {"start_wall_s": time.perf_counter() - wall, "start_cpu_s": begun_cpu}
        return {name: round(value, 3) for name, value in times.items()}

    if name == "plain loop":
        return begun() | timed(plain, make_job, 0, count)
    if name == "two processes":
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            in_processes(pool, Job(nothing, None, make_units(2), lambda unit, result: None))
            return begun() | timed(partial(in_processes, pool), make_job, 0, count)
    with ray_session(None) as ray:
        return begun() | timed(partial(on_ray, ray), make_job, 2, count)


SIDES = ("plain loop", "two processes", "Ray, two slots")


def compare(part: str, seconds: float, units: int, rounds: int) -> Iterator[Row]:
    """Yield rows of each side, in turns, for units of so many s of work."""
    loops = loops_for(seconds) if seconds else 0
    for number in range(rounds):
        for name in SIDES:
            with tempfile.TemporaryDirectory() as folder:

                def make_job(count: int, folder: str = folder) -> Job:
                    named = partial(publish, folder)
                    return Job(do_unit, (folder, loops), make_units(count), named)

                row = side(name, make_job, units)
            yield {"part": part, "side": name, "round": number, "unit_s": seconds} | row


def scaling(nodes: int) -> Iterator[Row]:
    """Yield what units that sleep take on so many simulated nodes."""
    from ray.cluster_utils import Cluster

    node = {"node_ip_address": "127.0.0.1", "object_store_memory": 80_000_000, "num_cpus": SLOTS}
    with tempfile.TemporaryDirectory(prefix="spk-ray-", ignore_cleanup_errors=True) as folder:
        node["temp_dir"] = os.environ["RAY_TMPDIR"] = folder
        os.mkdir(f"{folder}/ray")  # Ray writes its address there, and does not ask for the folder
        head = {**node, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(nodes - 1):
            cluster.add_node(**node)
        slots = SLOTS * nodes
        try:
            with ray_session(cluster.address) as ray:
                run = partial(on_ray, ray)

                def make_job(count: int) -> Job:
                    units = make_units(count)
                    return Job(nap, NAP, units, lambda unit, result: None)

                row = timed(run, make_job, 4 * slots, 8 * slots)
        finally:
            cluster.shutdown()
    yield (
        {"part": "scaling", "side": f"{nodes} nodes", "unit_s": NAP, "slots": slots}
        | {"ideal_wall_s": 8 * NAP}
        | row
    )


def memory(count: int) -> Iterator[Row]:
    """Yield the driver's resident memory while `count` units without work go by, ten times."""
    seen: list[float] = []

    def look(unit: Unit, result: str) -> None:
        if int(result) % (count // 10) == count // 10 - 1:
            seen.append(psutil.Process().memory_info().rss / 1e6)

    with ray_session(None) as ray:
        row = timed(
            partial(on_ray, ray),
            lambda units: Job(nothing, None, make_units(units), look),
            0,
            count,
        )
    for tenth, size in enumerate(seen, 1):
        yield {
            "part": "memory",
            "side": "Ray, two slots",
            "unit_s": 0,
            "rss_mb": round(size, 1),
        } | {
            **row,
            "units": tenth * count // 10,
        }


def in_a_process(words: list[str]) -> Iterator[Row]:
    """Yield the rows of a part that is run in a process of its own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # `ray_session` tells why
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }
    command = [sys.executable, "-W", "ignore", __file__, "-", "--only", *words]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def per_unit(rows: list[Row], part: str, name: str) -> tuple[float, float]:
    """Return the wall and the processor time of a unit, the least of the rounds, s."""
    mine = [row for row in rows if row["part"] == part and row["side"] == name]
    return tuple(min(row[key] / row["units"] for row in mine) for key in ("wall_s", "cpu_s"))


def tell(rows: list[Row], seconds: float) -> None:
    """Print rates, ratios and what follows for a unit of a minute."""
    for part in ("work", "tiny"):
        if not any(row["part"] == part for row in rows):
            continue
        loop = per_unit(rows, part, SIDES[0])
        print(f"units of {seconds if part == 'work' else 0:g} s, best round of each side:")
        for name in SIDES:
            wall, spent = per_unit(rows, part, name)
            ratio = spent / loop[1] if loop[1] else math.nan  # a loop too short to be timed
            print(
                f"  {name}: {1 / wall:.3g} units/s ({loop[0] / wall:.2f} of the loop's), "
                f"{spent:.4f} s of processor time a unit ({ratio:.3f} of the loop's)"
            )
    if any(row["part"] == "tiny" for row in rows):
        more = per_unit(rows, "tiny", SIDES[2])[1] - per_unit(rows, "tiny", SIDES[0])[1]
        print(f"a unit costs Ray {more:.4f} s more than the loop: {more / MINUTE:.3%} of a minute")
    if any(row["part"] == "work" for row in rows):
        starts = [row["start_cpu_s"] for row in rows if row["side"] == SIDES[2]]
        print(f"a Ray of this machine starts in {min(starts):.1f} s of processor time, once")
    for row in rows:
        if row["part"] == "scaling":
            share = row["ideal_wall_s"] / row["wall_s"]
            rate = row["units"] / row["wall_s"]
            print(f"{row['slots']} slots: {rate:.1f} units/s of {NAP:g} s, {share:.1%} of ideal")
    sizes = [row for row in rows if row["part"] == "memory"]
    if sizes:
        grown = ", ".join(f"{row['rss_mb']:.0f} after {row['units']:,}" for row in sizes)
        print(f"driver's memory, MB: {grown}; {sizes[0]['units'] * 10 / sizes[0]['wall_s']:.0f}/s")


def main(
    out: str, seconds: float, units: int, rounds: int, tiny: int, many: int, only: str
) -> None:
    """Run the parts, each in processes of its own, and write their rows."""
    parts = {
        "work": lambda: compare("work", seconds, units, rounds),
        "tiny": lambda: compare("tiny", 0.0, tiny, rounds),
        **{f"scaling{nodes}": partial(scaling, nodes) for nodes in (1, 2, 4, 8)},
        "memory": lambda: memory(many),
    }
    if out == "-":
        for row in parts[only]():
            print(json.dumps(row), flush=True)
        return
    more = ["--seconds", seconds, "--units", units, "--rounds", rounds, "--tiny", tiny]
    more += ["--many", many]
    rows: list[Row] = []
    for part in parts:
        if part.startswith(only):
            rows += in_a_process([part, *map(str, more)])
    for row in rows:
        row["cores"] = os.cpu_count()
    with Path(out).open("w", newline="") as file:
        sheet = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        sheet.writeheader()
        sheet.writerows(rows)
    tell(rows, seconds)
    print(f"load {min(r['load'] for r in rows):.1f} to {max(r['load'] for r in rows):.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the engine for several machines costs.")
    parser.add_argument("out", help="CSV to write.")
    parser.add_argument("--seconds", type=float, default=20.0, help="Work of a unit.")
    parser.add_argument("--units", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tiny", type=int, default=2000, help="Units without work.")
    parser.add_argument("--many", type=int, default=100_000, help="Units of the driver's memory.")
    parser.add_argument("--only", default="", help="How the name of a part begins.")
    main(**vars(parser.parse_args()))
