"""Benchmarks are rehearsed on a CPU, so that no change breaks them where nobody looks on."""

import importlib.util
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
GPU = BENCHMARKS / "gpu"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
# In python's place: it notes what it is asked for, prints a line, and fails where FAIL is asked.
STUB = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$OUT/asked.txt"
echo "a row of $1"
[[ "$*" != *"${FAIL:-nothing}"* ]]
"""
LIMITS = {"first.sh": 540, "second.sh": 240}  # s


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """Return how the whole probe ended on a CPU, and its findings."""
    out = tmp_path_factory.mktemp("probe")
    words = [str(GPU / "probe.py"), str(out), "--device", "cpu", "--size", "nano"]
    words += ["--batches", "2", "--batch-seconds", "8", "--limit", "3000"]  # s; a busy machine
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    lines = (out / "probe.jsonl").read_text().splitlines()
    return done, [json.loads(line) for line in lines]


def test_the_probe_of_a_gpu_runs_to_its_end_on_a_cpu(probed):
    done, findings = probed
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert findings[-1]["what"] == "end"
    assert [one for one in findings if "fails" in one["what"] or "left out" in one["what"]] == []


def test_the_probe_measures_each_thing(probed):
    _, findings = probed
    counts = {}
    for one in findings:
        counts[one["what"]] = counts.get(one["what"], 0) + 1
    expected = {"stream": 10, "part": 12, "product": 3, "attention": 2, "training": 6, "decode": 6}
    assert {what: counts.get(what) for what in expected} == expected
    (exact,) = [one for one in findings if "promise" in one["what"]]
    assert 0 <= float(exact["largest"]) < 1e-5
    assert all(one["times_real_time"] > 0 for one in findings if one["what"] == "stream")
    cases = [one["case"] for one in findings if one["what"] == "stream"]
    assert {f"{how}, shapes known" for how in ("as it is", "with a mask")} <= {*cases}
    measured = {one["part"] for one in findings if one["what"] == "part"}
    assert {f"attention, {how}" for how in ("mask", "packed")} <= measured
    (masked,) = [one for one in findings if one["what"].startswith("bfloat16 by a mask")]
    assert 0 < float(masked["largest"]) < 5e-2
    assert {one["dtype"] for one in findings if one["what"] == "writer"} == {"float16", "float32"}


def run_script(name, folder, **settings):
    python = folder / "python"
    python.write_text(STUB)
    python.chmod(0o755)
    out = folder / "out"
    done = subprocess.run(
        ["bash", str(GPU / name)],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "OUT": str(out), "PYTHON": str(python), "RTTM": "rttm", **settings},
        check=False,
    )
    return done, (out / "asked.txt").read_text().splitlines(), (out / "log.txt").read_text()


@pytest.mark.parametrize("name", LIMITS)
def test_the_steps_of_a_command_fit_its_limit_together(tmp_path, name):
    done, asked, log = run_script(name, tmp_path)
    assert done.returncode == 0, done.stderr
    steps = [line for line in log.splitlines() if "(at most " in line]
    limits = [int(line.partition("(at most ")[2].split()[0]) for line in steps]
    assert sum(limits) <= LIMITS[name]
    assert len(asked) >= len(steps) >= 7
    assert log.count("a row of") == len(asked)
    assert not [line for line in log.splitlines() if "failed" in line]


def test_a_step_that_fails_is_told_and_the_next_ones_run(tmp_path):
    done, asked, log = run_script("first.sh", tmp_path, FAIL="--only training")
    assert "# training: failed with 1" in done.stdout
    assert log.count("failed with") == 1
    assert asked[-1].endswith("--plain 1 16")


def test_the_sections_that_a_command_asks_for_are_those_that_there_are(tmp_path):
    _, asked, _ = run_script("first.sh", tmp_path)
    sections = [line.partition("--only ")[2].split()[0] for line in asked if "--only" in line]
    named = {name for words in sections for name in words.split(",")}
    found = {path.name: path.read_text() for path in GPU.glob("*.py")}
    assert named == {
        *("machine", "stream", "kernels", "parts", "attention"),
        *("exactness", "training", "writer", "decode"),
    }
    assert all(any(f"def {name}(" in text for text in found.values()) for name in named)


@pytest.fixture
def beside(monkeypatch):
    """Make the benchmarks importable, as they are for each other."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_what_stands_in_for_soundfile_may_be_looked_for(beside, monkeypatch):
    """transformers looks for it on import; a module without a spec makes that fail."""
    corpus = importlib.import_module("extract_corpus")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with monkeypatch.context() as patch:
        patch.setattr(corpus.importlib.util, "find_spec", lambda name: None)
        told = corpus.chosen_reader(Namespace(format="wav"))
    assert told == "wave (standard library)"
    assert importlib.util.find_spec("soundfile").name == "soundfile"


def test_a_training_case_that_fails_is_a_row_and_the_next_one_runs(
    beside, monkeypatch, tmp_path, capsys
):
    finetune = importlib.import_module("finetune")
    monkeypatch.setattr(sys, "argv", ["finetune.py", str(tmp_path / "rows.csv"), "--seconds", "2"])
    monkeypatch.setattr(finetune, "plain", lambda *_: 2.0)
    rows = []

    def ours(_waveforms, config, _args):
        rows.append((tmp_path / "rows.csv").read_text().count("\n"))
        if not config.cache_prefix:
            raise RuntimeError("out of memory")
        return 1.0

    monkeypatch.setattr(finetune, "ours", ours)
    finetune.main()
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert rows == [2, 3]  # each row was on disk before the next case began
    assert len(lines) == 4
    assert "RuntimeError: out of memory" in lines[2]
    assert float(lines[3].split('"')[2].split(",")[1]) > 3.0  # s of audio a second
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_the_engine_is_compared_with_a_loop_and_two_processes(tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    words = [str(BENCHMARKS / "engine.py"), str(tmp_path / "rows.csv"), "--only", "tiny"]
    done = subprocess.run(
        [sys.executable, *words, "--tiny", "20", "--rounds", "1"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert rows["side"].tolist() == ["plain loop", "two processes", "Ray, two slots"]
    assert (rows["units"] == 20).all()
    assert "a unit costs Ray" in done.stdout
