"""A Ray of two nodes on this machine, whose workers misbehave when told, and commands on it."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from helpers import without_next_steps

# Python loads it at the start of each worker of Ray: what files in FAULTS tell happens there, when
# a recording or a shard of a store is opened.
FAULTS = """
import os, signal, sys, time
faults = os.environ["SPK_TEST_FAULTS"]
worker = "default_worker.py" in open("/proc/self/cmdline").read()

def fault(event, arguments):
    if event != "open" or not isinstance(arguments[0], str):
        return
    name = os.path.basename(arguments[0])
    if name.startswith(".writing-probe") and os.path.exists(f"{faults}/blind"):
        raise FileNotFoundError(2, "No such file or directory")
    if not name.endswith((".wav", ".flac", ".h5")):
        return
    if os.path.exists(f"{faults}/kill-{name}"):
        os.kill(os.getpid(), signal.SIGKILL)
    if os.path.exists(f"{faults}/slow{name[name.rindex('.'):]}"):
        time.sleep(0.1)

if worker:
    sys.addaudithook(fault)
"""

# In a process of its own: it answers each line of its input with one, and ends with it.
CLUSTER = """
import os, sys
from ray.cluster_utils import Cluster
os.mkdir(f"{sys.argv[1]}/ray")  # where it writes its address, and does not ask for the folder
node = {"node_ip_address": "127.0.0.1", "object_store_memory": 80_000_000, "num_cpus": 1}
node["temp_dir"] = sys.argv[1]
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
second = cluster.add_node(**node)
print(cluster.address, flush=True)
for line in sys.stdin:
    if line == "kill a node\\n":
        cluster.remove_node(second, allow_graceful=False)
    elif line == "add a node\\n":
        second = cluster.add_node(**node)
    print("done", flush=True)
cluster.shutdown()
"""


# A driver of units that sleep, on a cluster or a Ray of its own, which receives a signal at the
# moment that it is told: ADDRESS MOMENT NUMBER.
DRIVER = """
import os, sys, threading, time
import click
from spk.common.commands import Command
from spk.common.engine import ray_session
from spk.common.engine.folders import check_machines
from spk.common.engine.ray_engine import run_units
from spk.common.engine.work import Job, Unit
from spk.common.log import log
from spk.common.signals import stop_then_raise

address, moment, number = sys.argv[1] or None, sys.argv[2], int(sys.argv[3])
UNITS, waits = 4, [0.1, 0.5]

def at(name):
    if moment == name:
        os.kill(os.getpid(), number)

def around(place, name, before, after):
    function = getattr(place, name)
    def called(*arguments, **settings):
        at(before)
        result = function(*arguments, **settings)
        at(after)
        return result
    setattr(place, name, called)

def work(shared, payload):
    time.sleep(payload)

def describe(ray):
    at("machines are checked")
    check_machines(ray, None, [])
    others = 1.0 if moment in {"never", "Ray ends", "Ray has ended"} else 1e6  # s: have to be ended
    seconds = [1.0, *[others] * (UNITS - 1)]
    return Job(work, None, [Unit(str(n), f"unit {n}", s) for n, s in enumerate(seconds)], publish)

def publish(unit, result):
    print(unit.name)
    at("a unit is published")
    while moment == "two come while Ray waits" and waits:
        threading.Timer(waits.pop(), os.kill, (os.getpid(), number)).start()

@click.command(cls=Command)
def main():
    os.environ |= {**ray_session.SETTINGS, ray_session.LOOPBACK: "0"}  # before Ray is imported
    import ray._private.worker as worker
    around(worker, "connect", "Ray connects", "Ray is connected")
    around(worker.ray, "shutdown", "Ray ends", "Ray has ended")
    ray_session.STUCK = 2.0
    with stop_then_raise(log) as stop:
        run_units(address, describe, stop, log)

if __name__ == "__main__":
    sys.argv[1:] = []
    main()
"""


UNITS = 4  # of the driver
UNIT = rb"ray::(extract|fit|train)_unit"  # what a process is called that is in one


def said_by(process):
    """Return the exit code of a command that is let run, and what it says on stdout and stderr."""
    said, errors = process.communicate(timeout=300)
    return process.returncode, said, without_next_steps(errors)


class RayOfTwoNodes:
    """A cluster, the folder of its workers' faults, and the environment of its commands."""

    def __init__(self, cluster, faults, environment):
        self.cluster, self.faults, self.environment = cluster, faults, environment
        self.commands = []
        self.address = cluster.stdout.readline().strip()

    def tell(self, order):
        """Have a node killed or added, and wait until that is done."""
        self.cluster.stdin.write(f"{order}\n")
        self.cluster.stdin.flush()
        assert self.cluster.stdout.readline() == "done\n"

    def set_fault(self, name):
        """Have opened recordings ("slow.wav") or shards ("slow.h5") take 0.1 s, and so on."""
        (self.faults / name).touch()

    def clear(self):
        for fault in self.faults.iterdir():
            fault.unlink()

    def processes(self):
        """Return all that the cluster and its commands have started: {process: command line}."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self.faults.as_posix().encode() in (place / "environ").read_bytes():
                    found[int(place.name)] = (place / "cmdline").read_bytes()
        return found

    def workers(self, kind=UNIT):
        """Return the processes that are in a unit now, or in another kind of task."""
        return [number for number, line in self.processes().items() if re.match(kind, line)]

    def wait_until_idle(self, kind=UNIT):
        """Wait until no process is in a unit: Ray ends those of a driver soon after it."""
        self.wait_for(lambda: not self.workers(kind), self.cluster)

    def start(self, words, folder):
        """Start ``spk`` in a folder."""
        return self.start_python(["-m", "spk", *words], folder)

    def start_python(self, words, folder):
        """Start Python in a folder, in a process group of its own."""
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.commands.append(process)
        return process

    def end_commands(self):
        """Kill the commands that a test has left."""
        while self.commands:
            process = self.commands.pop()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            process.stderr.close()

    def wait_until_gone(self):
        """Wait for the end of all that was started; raise `AssertionError` where some is left."""
        limit = time.monotonic() + 20
        while left := self.processes():
            assert time.monotonic() < limit, left
            time.sleep(0.1)

    @staticmethod
    def wait_for(condition, process):
        """Wait until a condition holds while a process runs; return what it gave."""
        limit = time.monotonic() + 300
        while not (value := condition()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < limit
            time.sleep(0.02)
        return value

    def run(self, words, folder):
        """Return the exit code of ``spk``, and what it says on stdout and stderr."""
        return said_by(self.start(words, folder))


@contextmanager
def start_two_nodes(folder):
    """Yield a Ray of two nodes with one core each, bound to the loopback address."""
    (folder / "faults").mkdir()
    (folder / "sitecustomize.py").write_text(FAULTS)
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "SPK_TEST_FAULTS": str(folder / "faults"),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        # a node that is gone is noticed after 2 s, not half a minute
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "3",
    }
    with (
        # sockets need short paths; of its own, as Rays find one another in the usual place
        TemporaryDirectory(prefix="spk-ray-", dir="/tmp", ignore_cleanup_errors=True) as place,
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CLUSTER, place],
            env={
                **environment,
                "RAY_TMPDIR": place,
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # `ray_session` tells why
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as cluster,
    ):
        two = RayOfTwoNodes(cluster, folder / "faults", environment)
        try:
            yield two
        finally:
            two.end_commands()
            cluster.stdin.close()
            cluster.wait(60)
    two.wait_until_gone()


@pytest.fixture(scope="session")
def ray_of_two_nodes(tmp_path_factory):
    """Yield the Ray of two nodes of all tests; it must leave no process."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with start_two_nodes(tmp_path_factory.mktemp("ray")) as two:
        yield two


@pytest.fixture
def two(ray_of_two_nodes):
    """Return the Ray of two nodes, without faults."""
    ray_of_two_nodes.clear()
    yield ray_of_two_nodes
    ray_of_two_nodes.clear()
    ray_of_two_nodes.end_commands()
