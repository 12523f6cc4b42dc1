"""The command spk-extract, as a user runs it."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pandas as pd
import pytest
from click.testing import CliRunner
from helpers import noise_meeting

from spk.common.counts import counted
from spk.extract.cli import main
from spk.extract.pipeline.runner import ExtractionRun
from spk.extract.store.reader import FeatureStore
from spk.manifests.table import write_table

RUN = "from spk.extract.cli import main\nif __name__ == '__main__':\n    main()\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return a folder with a recording and two tables: usable.csv, and spoilt.csv."""
    root = tmp_path_factory.mktemp("corpus")
    spans = [(float(start), start + 0.5) for start in range(59)]
    table = noise_meeting(root, "S01.flac", spans, speakers=["001"], silent=1.0)
    write_table(table, root / "spoilt.csv")
    write_table(table[1:], root / "usable.csv")
    (root / "run.py").write_text(RUN)
    return root


def call(corpus, table, store, *more):
    options = ["--encoder", "demo", "--audio-root", str(corpus), "--workers", "0", *more]
    return CliRunner().invoke(main, [str(corpus / table), str(store), *options])


def test_kernels_of_few_shapes_are_kept_unless_the_user_says_otherwise(
    corpus, tmp_path, monkeypatch
):
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.delenv(name, raising=False)
    assert call(corpus, "usable.csv", tmp_path / "store").exit_code == 0
    assert os.environ[name] == "64"
    monkeypatch.setenv(name, "7")
    assert call(corpus, "usable.csv", tmp_path / "store").exit_code == 0
    assert os.environ[name] == "7"


def test_a_run_tells_one_line_and_ends_with_0(corpus, tmp_path):
    result = call(corpus, "usable.csv", tmp_path / "store")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 1
    assert "58 of 58 segments have features, 58 of them new" in result.stdout
    assert "times real time" in result.stdout
    assert "the encoder is untrained" in result.stdout
    assert result.stderr.startswith("next: ")
    assert len(result.stderr.splitlines()) == 1


def test_rejected_segments_end_with_3_and_are_listed(corpus, tmp_path):
    for _ in range(2):  # a resumed run says so too
        result = call(corpus, "spoilt.csv", tmp_path / "store")
        assert result.exit_code == 3
        assert "1 rejected (silent 1), see" in result.stdout
    assert pd.read_csv(tmp_path / "store.rejected.csv")["code"].tolist() == ["silent"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--channel", "3"], "S01.flac: channels are 1, expected more than 3"),
        (["--layers", "0-99"], "--layers: value is '0-99'"),
        (["--shard", "2"], "--shard: value is '2', expected i/n"),
        (["--encoder", "/no/such"], "--encoder: '/no/such' is not a folder"),
        (["--audio-root", "/no/such"], "/no/such: 1 of 1 recording is missing"),
        (["--dtype", "float16", "--device", "cpu"], "--dtype: value is 'float16' on a CPU"),
    ],
)
def test_what_the_user_can_repair_is_one_line_and_1(corpus, tmp_path, more, message):
    result = call(corpus, "usable.csv", tmp_path / "store", *more)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr


def test_a_plan_makes_nothing(corpus, tmp_path):
    result = call(corpus, "usable.csv", tmp_path / "store", "--plan")
    assert result.exit_code == 0
    assert result.stdout == "58 segments, 0.01 h, cache about 0.1 MB (6 layers x 128, float16)\n"
    assert not (tmp_path / "store").exists()


def test_help_and_plan_do_without_torch(corpus, tmp_path):
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom spk.extract.cli import main\n"
        "result = CliRunner().invoke(main, sys.argv[1:])\n"
        "sys.exit(result.exit_code or ('torch' in sys.modules))"
    )
    table = str(corpus / "usable.csv")
    for arguments in (["--help"], [table, str(tmp_path / "s"), "--plan", "--encoder", "demo"]):
        assert subprocess.run([sys.executable, "-c", code, *arguments], check=False).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_a_batch_with_its_own_code(
    corpus, tmp_path, monkeypatch, number
):
    take = ExtractionRun._usable

    def interrupted(self, read, writing):
        os.kill(os.getpid(), number)
        return take(self, read, writing)

    monkeypatch.setattr(ExtractionRun, "_usable", interrupted)
    before = signal.getsignal(number)
    result = call(corpus, "usable.csv", tmp_path / "store", "--batch-seconds", "4")
    assert result.exit_code == 128 + number
    assert "8 of 58 segments have features, 8 of them new" in result.stdout
    assert result.stderr.splitlines()[-1] == "interrupted; run the same command to resume"
    assert signal.getsignal(number) is before
    assert len(FeatureStore.open(tmp_path / "store").ids()) == 8


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_leaves_a_whole_store_and_no_traceback(corpus, tmp_path):
    store = tmp_path / "store"
    options = ["--encoder", "demo", "--audio-root", str(corpus), "--batch-seconds", "0.1"]
    process = subprocess.Popen(
        [sys.executable, "run.py", "usable.csv", str(store), "--workers", "1", *options],
        cwd=corpus,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not (store / "store.json").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.1)  # whatever was reached, the store must agree with the line
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    kept = len(FeatureStore.open(store).ids())
    assert "Traceback" not in err
    if kept < 58:  # else the machine was so fast that the signal came after the end
        assert process.returncode == 130
        assert f"{counted(kept, 'segment', 'has', of=58)} features" in out


@pytest.mark.slow
def test_a_terminal_shows_segments_speed_and_time_left(corpus, tmp_path):
    run, terminal = pty.fork()
    if run == 0:
        os.chdir(corpus)
        options = ["--encoder", "demo", "--batch-seconds", "4", "--workers", "0"]
        command = [sys.executable, "run.py", "usable.csv", str(tmp_path / "store"), *options]
        os.execve(sys.executable, command, {**os.environ, "TQDM_MININTERVAL": "0"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))  # a new one has 0
    shown = b""
    try:
        while block := os.read(terminal, 4096):
            shown += block
    except OSError:  # how Linux tells that the other end of a terminal is closed
        pass
    finally:
        os.close(terminal)
        os.waitpid(run, 0)
    assert re.search(r"%\|[^|]*\| \d+ segments, \d+ times real time, [\d:]+ left", shown.decode())
