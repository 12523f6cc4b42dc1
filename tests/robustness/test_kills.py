"""A small share of `kills.py`, and proof that it finds what it looks for."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CAMPAIGNS = Path(__file__).with_name("campaigns")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
COMMANDS = ("extraction, pooled", "extraction, --frames", "merge", "cut", "fleet", "sweep")
# Each function breaks one promise in what is killed or stopped; `FOUND` must come of it.
BROKEN = """
import json, random, signal, sys, tempfile, time
from pathlib import Path
from kills import Campaign
from victims import make_inputs, victims

def half_a_shard():  # under its final name, for a while and for good
    from spk.extract.store import writer as store
    def publish(temporary, path):
        path.write_bytes(temporary.read_bytes()[:1000])
        temporary.unlink()
        time.sleep(0.3)
    store.publish = publish

def a_shard_goes():  # the one before, at each commit
    from spk.extract.store import writer as store
    old = store.StoreWriter.commit
    def commit(self):
        old(self)
        for path in sorted((self.path / "shards").glob("*.h5"))[:-1]:
            path.unlink()
    store.StoreWriter.commit = commit

def a_bit_of_a_committed_shard():
    for path in sorted(Path("out/shards").glob("*.h5"))[:1]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

def other_features():  # sealed as if they were right
    from spk.extract.store.shard_writer import ShardWriter
    old = ShardWriter._to_stored_dtype
    def doubled(*of):
        stored = old(*of)
        stored *= 2
        return stored
    ShardWriter._to_stored_dtype = doubled

def a_sample_of_a_cut_file():
    for path in sorted(Path("out").glob("*.wav"))[:1]:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

def no_tables():
    from spk.manifests.cutting import cut
    cut.write_listing = lambda *of: None

def mute():
    from spk.common import signals as ending
    ending._tell = lambda: None

def nothing():
    pass

folder = Path(tempfile.mkdtemp(dir=sys.argv[1]))
make_inputs(folder / "inputs", 600)
known = {victim.name: victim for victim in victims()}
for name, breaks, number in (
    ("merge", half_a_shard, 9), ("merge", a_shard_goes, 9), ("merge", other_features, 9),
    ("merge", a_bit_of_a_committed_shard, 9), ("cut", a_sample_of_a_cut_file, 9),
    ("cut", no_tables, 9), ("merge", mute, 15),
):
    rng = random.Random(1)
    work = Campaign(known[name], folder / "inputs", folder / breaks.__name__, rng, before=breaks)
    kinds = set()
    for turn in range(6):  # not every kill comes when there is something to break
        sums = work.run(3, work.kill if number == 9 else work.stop(number))
        kinds |= {kind for kind, count in sums.items() if count}
        if set(json.loads(sys.argv[2])[breaks.__name__]) <= kinds:
            break
    print(json.dumps([breaks.__name__, sorted(kinds)]))
for name in ("merge", "cut"):
    work = Campaign(known[name], folder / "inputs", folder / f"whole {name}", random.Random(2))
    for number in (signal.SIGTERM, signal.SIGINT):
        sums = work.run(2, work.stop(number))
        print(json.dumps([f"{name} {int(number)}", [sums["signals"], work.findings]]))
"""
FOUND = {
    "half_a_shard": {"unreadable"},
    "a_shard_goes": {"lost"},
    "other_features": {"wrong", "unfinished"},
    "a_bit_of_a_committed_shard": {"unreadable"},
    "a_sample_of_a_cut_file": {"changed", "wrong", "unfinished"},
    "no_tables": {"unfinished"},
    "mute": {"unclean"},
}


def run(words, **more):
    """Run Python beside the scripts."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=CAMPAIGNS,
        env={**ENVIRONMENT, **more},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def share(tmp_path_factory):
    """Return what a few kills and signals of each command print."""
    place = tmp_path_factory.mktemp("kills")
    done = run(["kills.py", "0.04", "--own", "0", "--rows", "400"], TMPDIR=str(place))
    assert not list(place.glob("kills-*"))
    return done


def figures(share, what):
    """Return the numbers of a printed row."""
    (told,) = re.findall(rf"^{re.escape(what)} \| ([\d, |]+)$", share.stdout, re.MULTILINE)[-1:]
    return [int(number.replace(",", "")) for number in told.split(" | ")]


@pytest.mark.parametrize("what", COMMANDS)
def test_killed_at_any_moment_nothing_is_lost_or_changed_and_the_next_run_completes(share, what):
    kills, _, _, _, _, *found = figures(share, what)
    assert kills == (4 if "extraction" in what else 2)
    assert found == [0] * 5, share.stdout


def test_the_whole_says_that_nothing_was_found_and_that_it_hit_where_it_hurts(share):
    assert share.returncode == 0, share.stdout + share.stderr
    assert share.stdout.endswith("nothing found\n")
    (told,) = re.findall(r"^all \| (\d+) \| \d+ \| (\d+) \| (\d+) ", share.stdout, re.MULTILINE)[:1]
    kills, at_work, inside = map(int, told)
    assert kills == 16
    assert at_work >= 4
    assert inside >= 1


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Return what is found where a promise is broken, and where a signal comes."""
    wanted = json.dumps({name: sorted(kinds) for name, kinds in FOUND.items()})
    done = run(["-c", BROKEN, str(tmp_path_factory.mktemp("broken")), wanted])
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


@pytest.mark.parametrize("promise", FOUND)
def test_a_broken_promise_is_found(broken, promise):
    assert FOUND[promise] <= set(broken[promise])


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("what", ["merge", "cut"])
def test_a_signal_ends_it_by_a_line_and_the_next_run_completes(broken, what, kind):
    assert broken[f"{what} {int(kind)}"] == [2, []]


def test_ctrl_c_while_torch_is_imported_is_one_line(tmp_path):
    (tmp_path / "t.csv").write_text("segment_id,audio,start,end,speaker,session\na,a.wav,0,1,p,s\n")
    (tmp_path / "a.wav").touch()
    words = ["-c", "from spk.extract.cli import main; main()", "t.csv", "out", "--encoder", "demo"]
    with subprocess.Popen(
        [sys.executable, *words], cwd=tmp_path, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True
    ) as running:
        maps = Path(f"/proc/{running.pid}/maps")
        while "libtorch" not in maps.read_text():
            time.sleep(0.005)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate()
    assert running.returncode == 130
    assert told.splitlines()[-1] == "interrupted; run the same command to resume"
    assert "Traceback" not in told
