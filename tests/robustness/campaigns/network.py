"""Pull the cables of machines: ``python tests/robustness/campaigns/network.py [CUTS] [SECONDS]``.

Two machines are made from this one, as root: each has its own processes, network address, host
name, ``/tmp`` and shared memory; they are connected by cables to a switch, and share the folder
``/mnt``. The lines of "By hand, on two machines" on the page about clusters are typed there: the
token, Ray, and one extraction after another. The first is left alone; then, CUTS times, the cable
of the second machine is pulled while it is in a unit, for ten seconds and for SECONDS. At the end
every row must be there once, bit for bit as from the first machine alone, and nothing half-written
may be left. The second machine must see who writes; a second writer there, and machines that lack a
folder or have another version, must be refused. Exit code 1 if anything is wrong, 2 without root.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from victims import Store, make_inputs

from spk.extract import FeatureStore

BOOT = """set -e
hostname "$1"
mount --bind "$2" /mnt
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mkdir /tmp/home
ip link set lo up
echo ready
exec "$3" -c 'import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that no process is left without a parent
while True: signal.pause()'"""
SPACES = {"net": "net", "uts": "uts", "mount": "mnt", "pid": "pid_for_children"}
HEAD, SECOND, ADDRESS = "10.0.0.1", "10.0.0.2", "10.0.0.1:6379"
TOKEN = "RAY_AUTH_MODE=token"
# Each segment is a batch of its own, so that the bits are those of a run without units.
EXTRACT = (
    "spk-extract /mnt/many.csv {} --audio-root /mnt/wav --encoder untrained --workers 0 "
    "--device cpu --batch-seconds 0.1"
)
RAY = f" --engine ray --ray-address {ADDRESS} --unit-minutes 0.1"
ROWS, DONE = 1200, 3  # exit code of a whole run: some segments are silent
SOME = 4  # shards after which to intervene
SHORT = 10.0  # s of a cut that Ray tolerates
LATEST = 1200.0  # longest time of a command, s
Driver = subprocess.Popen[str]
Meanwhile = Callable[[Path, Driver], None]


class Machine:
    """A machine, from its start until `off`, which ends everything that runs there."""

    def __init__(self, name: str, shared: Path) -> None:
        words = ["unshare", *(f"--{space}" for space in SPACES), "--fork", "--kill-child"]
        words += ["--mount-proc", "sh", "-c", BOOT, "sh", name, str(shared), sys.executable]
        self._root = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
        assert self._root.stdout is not None
        if self._root.stdout.readline() != b"ready\n":
            sys.exit(f"{name}: does not start")
        self.number = str(self._root.pid)

    def start(self, line: str, **settings: str) -> subprocess.Popen[str]:
        """Start a command line there."""
        spaces = [f"--{n}=/proc/{self.number}/ns/{file}" for n, file in SPACES.items()]
        environment = {"HOME": "/tmp/home", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **settings}
        return subprocess.Popen(
            ["nsenter", *spaces, "sh", "-c", f"cd /tmp/home; {line}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, line: str, **settings: str) -> tuple[int, str]:
        """Run a command line there; return its exit code and its output."""
        process = self.start(line, **settings)
        said, _ = process.communicate(timeout=LATEST)
        return process.returncode, said

    def must(self, line: str, **settings: str) -> str:
        """Run a command line that has no reason to fail, and return its output."""
        code, said = self.run(line, **settings)
        if code:
            sys.exit(f"{line}: exit code {code}: {said}")
        return said

    def off(self) -> None:
        """Cut the power."""
        os.killpg(self._root.pid, signal.SIGKILL)
        self._root.wait()


class TwoMachines:
    """Two machines of one Ray cluster, and the switch between them."""

    def __init__(self, shared: Path) -> None:
        self.all = [Machine(name, shared) for name in ("switch", "first", "second")]
        self.switch, self.first, self.second = self.all
        self.switch.must("ip link add lan type bridge; ip link set lan up")
        for name, address in (("first", HEAD), ("second", SECOND)):
            self._connect(getattr(self, name), name, address)
        self.first.must("ray get-auth-token --generate > /dev/null; cp .ray/auth_token /mnt/token")
        self.second.must("mkdir .ray; mv /mnt/token .ray/auth_token")
        self.first.must("ray start --head --port=6379", RAY_AUTH_MODE="token")
        self.join()

    def _connect(self, machine: Machine, name: str, address: str) -> None:
        cable = ["eth0", "netns", machine.number, "type", "veth", "peer", "name", name]
        subprocess.run(["ip", "link", "add", *cable, "netns", self.switch.number], check=True)
        self.switch.must(f"ip link set {name} master lan up")
        machine.must(f"ip addr add {address}/24 dev eth0; ip link set eth0 up")
        machine.must("ip route add default dev eth0")

    def join(self) -> None:
        """Let the second machine join Ray again, which ends there after a minute offline."""
        self.second.must(f"ray stop --force; ray start --address={ADDRESS}", RAY_AUTH_MODE="token")

    def pull(self, *, back: bool = False) -> None:
        """Unplug the cable of the second machine, or plug it in again."""
        self.switch.must(f"ip link set second {'up' if back else 'down'}")

    def off(self) -> None:
        """End both machines."""
        for machine in self.all:
            machine.off()


class Campaign:
    """Extractions on two machines, compared with one on the first machine alone."""

    def __init__(self, machines: TwoMachines, shared: Path) -> None:
        self.machines, self.shared = machines, shared
        self.store, self.findings = Store("", lambda inputs, turn: "", done=DONE), 0
        self._extract("/mnt/alone/out", "")
        self._whole = self.store.whole(shared / "alone")

    def _extract(self, out: str, more: str = RAY, meanwhile: Meanwhile | None = None) -> None:
        """Extract on the first machine; call `meanwhile` once some shards are there."""
        begun, place = time.monotonic(), self.shared / Path(out).parent.name
        place.mkdir()
        process = self.machines.first.start(EXTRACT.format(out) + more, RAY_AUTH_MODE="token")
        if meanwhile:
            while process.poll() is None and len(self.store.files(place)) < SOME:
                time.sleep(0.1)
            meanwhile(place, process)
        said, _ = process.communicate(timeout=LATEST)
        took = time.monotonic() - begun
        print(f"{place.name}: {took:.0f} s; {said.splitlines()[0] if said else ''}", flush=True)
        self.expect(process.returncode == DONE and "raylet" not in said, f"{place.name}: {said}")

    def check(self, name: str, meanwhile: Meanwhile | None = None) -> None:
        """Extract, and compare the result."""
        self._extract(f"/mnt/{name}/out", meanwhile=meanwhile)
        self.compare(self.shared / name)

    def compare(self, place: Path) -> None:
        """Compare the result with what the first machine wrote alone."""
        whole, shards = self.store.whole(place), FeatureStore.open(place / "out").shards
        differ = {name for name, _ in whole.items() ^ self._whole.items()}
        self.expect(
            not differ, f"{place.name}: {len(differ)} differ, first {min(differ, default='')}"
        )
        ids = [n for shard in shards for n in FeatureStore.open(shard.path).ids().tolist()]
        self.expect(len(ids) == len({*ids}), f"{place.name}: a segment has two rows")
        left = self.store.torn(place)
        self.expect(not left, f"{place.name}: {left} are left")

    def cut(self, place: Path, process: Driver, *, seconds: float) -> None:
        """Pull the cable of the second machine while it is in a unit."""
        while process.poll() is None and not self._is_busy(place):
            time.sleep(0.02)
        self.machines.pull()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        self.machines.pull(back=True)

    @staticmethod
    def _is_busy(place: Path) -> bool:
        """Return whether the second machine is in a unit."""
        for mark in (place / "out" / ".running").glob("*-*"):
            with suppress(OSError):  # the unit is done
                if '"host": "second"' in mark.read_text():
                    return True
        return False

    def ask(self, place: Path, process: Driver) -> None:
        """Ask the second machine who writes, and let it try to, while the writer is paused."""
        writer = json.loads((place / "out" / "lock").read_text())["pid"]
        self.machines.first.must(f"kill -STOP {writer}")
        out, second = f"/mnt/{place.name}/out", self.machines.second
        _, said = second.run(f"spk-store info {out}")
        told = re.search(r"^running: \d+ of .* on first, since .*\(updated ", said, re.MULTILINE)
        self.expect(bool(told), f"the second machine does not see who writes: {said}")
        code, said = second.run(EXTRACT.format(out))
        refused = code == 1 and '"host": "first"' in said
        self.expect(refused, f"a second writer is let in: {code}: {said}")
        self.machines.first.must(f"kill -CONT {writer}")

    def refusals(self) -> None:
        """Start what the second machine cannot do; each must be refused in one line."""
        second = self.machines.second
        self._refused("features", "/tmp/home/features/shards is not seen there")
        second.must("mount -t tmpfs tmpfs /mnt/wav")
        self._refused("/mnt/refused", "the audio /mnt/wav/")
        second.must("umount /mnt/wav")
        files = distribution("spk-toolkit").files or []
        there = next(file.locate() for file in files if file.name == "METADATA")
        second.must(f"sed 's/^Version:.*/Version: 0.0.1/' {there} > /tmp/old")
        second.must(f"mount --bind /tmp/old {there}")
        self._refused("/mnt/refused", "spk-toolkit is 0.0.1 there and ")
        second.must(f"umount {there}")
        code, said = self.machines.first.run(EXTRACT.format("/mnt/refused") + RAY)
        self.expect(code == 1 and f"expected {TOKEN}" in said, f"no token: {code}: {said}")

    def _refused(self, out: str, why: str) -> None:
        expected = f"--ray-address: 1 machine cannot work, first {SECOND}: {why}"
        line = EXTRACT.format(out) + RAY
        code, said = self.machines.first.run(line, RAY_AUTH_MODE="token")
        right = code == 1 and said.startswith(expected) and said.count("\n") == 1
        self.expect(right, f"expected {expected!r}: {code}: {said}")

    def expect(self, right: bool, told: str) -> None:
        """Record a fault unless `right`."""
        if not right:
            self.findings += 1
            print(f"FOUND {told[-2000:]}", flush=True)


def main(cuts: int = 1, seconds: float = 120.0, rows: int = ROWS) -> int:
    """Pull cables, and print the durations; return the number of faults."""
    if os.geteuid():
        print("network: machines are made of this one by root alone; not run", file=sys.stderr)
        return 2
    shared = Path(tempfile.mkdtemp(prefix="network-"))
    make_inputs(shared, rows)
    machines = TwoMachines(shared)
    try:
        work = Campaign(machines, shared)
        work.refusals()
        work.check("asked", work.ask)
        work.check("undisturbed")
        for number in range(cuts):
            for length in (SHORT, seconds):
                work.check(f"cut-{number}-{length:.0f}", partial(work.cut, seconds=length))
                machines.join()
    finally:
        machines.off()
        shutil.rmtree(shared)
    print(f"load {os.getloadavg()[0]:.0f}; {work.findings or 'nothing'} found")
    return bool(work.findings)


if __name__ == "__main__":
    arguments: list[Any] = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*arguments))
