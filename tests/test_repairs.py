"""A repair that a message names gets the user on when it is typed: situations, walked for real."""

import ast
import re
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile

from spk.classify.cli import main as classify
from spk.classify.naming.cli import main as naming
from spk.extract.cli import main as extract
from spk.extract.store.cli import store
from spk.finetune.cli import main as finetune
from spk.manifests.cli import main as manifests

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {"spk-manifests": manifests, "spk-extract": extract, "spk-store": store}
PROGRAMS |= {"spk-classify": classify, "spk-name": naming, "spk-finetune": finetune}


def write(name, text):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def turns(name, *lines):
    """Write an RTTM of (session, start, seconds, speaker)."""
    rows = [f"SPEAKER {s} 1 {b} {n} <NA> <NA> {who} <NA> <NA>\n" for s, b, n, who in lines]
    write(name, "".join(rows))


def sound(name, seconds=4.0, rate=16000, seed=0):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).standard_normal(int(seconds * rate)) * 0.05
    soundfile.write(name, noise, rate)


def wide(name, rate):
    """Write one recording of four turns at a rate, and its table."""
    sound(f"{name}/s1.wav", rate=rate)
    turns(f"{name}/s1.rttm", *(("s1", i, 0.9, "AB"[i % 2]) for i in range(4)))


def taken_table():
    wide("m", 16000)
    write("t.csv", "mine\n")


def twice_cut():
    wide("m", 16000)


def flip(path):
    shard = next(Path(path).rglob("*.h5"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))


MAKE = "spk-manifests rttm m t.csv --audio-root m"
CUT = "spk-manifests cut --rttm-dir m --pcm-dir m --output-dir c --min-seconds 0.5"
STORE = "spk-extract t.csv st --audio-root m --encoder demo"

# (what there is, what was typed before, what is typed, what its message says, the repair as it is
#  typed, in order, the exit code of the last). A function among the lines is done by hand.
SITUATIONS = {
    "other content: --overwrite": (
        taken_table,
        [],
        MAKE,
        "pass --overwrite",
        [f"{MAKE} --overwrite"],
        0,
    ),
    "other content: another file": (
        taken_table,
        [],
        MAKE,
        "name another file",
        [MAKE.replace("t.csv", "u.csv")],
        0,
    ),
    "an input: --overwrite": (
        twice_cut,
        [MAKE],
        "spk-manifests select t.csv t.csv --min-seconds 0.5",
        "pass --overwrite",
        ["spk-manifests select t.csv t.csv --min-seconds 0.5 --overwrite"],
        0,
    ),
    "an input: another": (
        twice_cut,
        [MAKE, STORE],
        "spk-store export st st/a.npz",
        "name another",
        ["spk-store export st a.npz"],
        0,
    ),
    "a user's notes": (
        lambda: (twice_cut(), write("t.csv.notes.csv", "mine")),
        [],
        MAKE,
        "move it away",
        [lambda: Path("t.csv.notes.csv").rename("mine.csv"), MAKE],
        0,
    ),
    "suffix": (twice_cut, [], MAKE.replace("t.csv", "t.txt"), "rename it", [MAKE], 0),
    "a table for a store": (
        twice_cut,
        [MAKE, STORE],
        "spk-store info t.csv",
        "a folder written by spk-extract",
        ["spk-store info st"],
        0,
    ),
    "a table for a store to write": (
        twice_cut,
        [MAKE],
        "spk-extract t.csv t.csv --audio-root m --encoder demo",
        "name another folder",
        [STORE],
        0,
    ),
    "no store": (
        twice_cut,
        [MAKE],
        "spk-store info st",
        "make it with spk-extract",
        [STORE, "spk-store info st"],
        0,
    ),
    "a damaged shard": (
        twice_cut,
        [MAKE, STORE, lambda: flip("st")],
        "spk-store verify st",
        "delete the file and run spk-extract again",
        [lambda: next(Path("st").rglob("*.h5")).unlink(), STORE, "spk-store verify st"],
        0,
    ),
    "a damaged packed store": (
        twice_cut,
        [MAKE, STORE, "spk-store pack st p.h5", lambda: flip(".")],
        "spk-store verify p.h5",
        "pack it again with spk-store pack",
        ["spk-store pack st p.h5 --overwrite", "spk-store verify p.h5"],
        0,
    ),
    "verify needs both": (
        twice_cut,
        [MAKE, STORE],
        "spk-store verify st --table t.csv",
        "pass the other too",
        ["spk-store verify st --table t.csv --audio-root m"],
        0,
    ),
    "verify in its old spelling": (
        twice_cut,
        [MAKE, STORE],
        "spk-store verify st --audio m",
        "--table and --audio-root",
        ["spk-store verify st --audio m --table t.csv"],
        0,
    ),
    "audio that changed": (
        twice_cut,
        [MAKE, STORE, lambda: sound("m/s1.wav", seed=1)],
        "spk-store verify st --table t.csv --audio-root m",
        "extract it to another store",
        [STORE.replace("st ", "u "), "spk-store verify u --table t.csv --audio-root m"],
        0,
    ),
    "other layers": (
        twice_cut,
        [MAKE, STORE],
        f"{STORE} --layers 2",
        "name another",
        [f"{STORE} --layers 2".replace("st ", "u ")],
        0,
    ),
    "no recordings there": (
        twice_cut,
        [MAKE],
        "spk-extract t.csv st --encoder demo",
        "--audio-root",
        [STORE],
        0,
    ),
    "a folder of something else": (
        lambda: (twice_cut(), write("st/x.txt", "mine")),
        [MAKE],
        STORE,
        "name another folder",
        [STORE.replace("st ", "u ")],
        0,
    ),
    "cut: another request": (
        twice_cut,
        [MAKE, "spk-manifests cut t.csv c --audio-root m"],
        "spk-manifests cut t.csv c --audio-root m --format flac",
        "name another folder",
        ["spk-manifests cut t.csv d --audio-root m --format flac"],
        0,
    ),
    "cut: a user's listing": (
        lambda: (twice_cut(), write("c/segments.csv", "mine")),
        [MAKE],
        "spk-manifests cut t.csv c --audio-root m",
        "name another folder",
        ["spk-manifests cut t.csv d --audio-root m"],
        0,
    ),
    "cut: a turn of no length": (
        lambda: (twice_cut(), turns("m/s1.rttm", ("s1", 0, 0.9, "A"), ("s1", 2, 0, "A"))),
        [],
        CUT,
        "pass --skip-bad",
        [f"{CUT} --skip-bad"],
        3,
    ),
    "cut: an unreadable recording": (
        lambda: (twice_cut(), write("m/s2.wav", "no audio"), turns("m/s2.rttm", ("s2", 0, 1, "B"))),
        [],
        CUT,
        "pass --skip-bad",
        [f"{CUT} --skip-bad"],
        3,
    ),
    "cut: another rate": (
        lambda: wide("m", 8000),
        [MAKE],
        "spk-manifests cut t.csv c --audio-root m",
        "--resample",
        ["spk-manifests cut t.csv c --audio-root m --resample"],
        0,
    ),
    "a merge of others": (
        twice_cut,
        [MAKE, STORE, f"{STORE} --layers 2".replace("st ", "u ")],
        "spk-store merge u st",
        "leave it out",
        ["spk-store merge st v"],
        0,
    ),
    "a user's file in a store to be replaced": (
        twice_cut,
        [MAKE, STORE, "spk-store merge st v", lambda: write("v/x.txt", "mine")],
        "spk-store merge st v --overwrite",
        "move it away",
        [lambda: Path("v/x.txt").rename("x.txt"), "spk-store merge st v --overwrite"],
        0,
    ),
    "a record of a split that is damaged": (
        twice_cut,
        [MAKE, lambda: write("t.csv.split.json", '{\n "method": ')],
        "spk-manifests select t.csv u.csv",
        "run spk-manifests split",
        ["spk-manifests split t.csv v.csv", "spk-manifests select v.csv u.csv"],
        0,
    ),
    "match-csv: an interrupted renaming": (
        lambda: (twice_cut(), write("c/match.aside.json", "[]")),
        [MAKE, "spk-manifests cut t.csv c --audio-root m"],
        "spk-manifests match-csv --segments-dir c --csv-path c/segments.csv --dry-run",
        "run without --dry-run",
        ["spk-manifests match-csv --segments-dir c --csv-path c/segments.csv"],
        0,
    ),
    "demo: other content": (
        lambda: write("d/people.csv", "mine"),
        [],
        "spk-manifests demo d --sessions 1 --minutes 1 --channels 1",
        "pass --overwrite",
        ["spk-manifests demo d --sessions 1 --minutes 1 --channels 1 --overwrite"],
        0,
    ),
    "export: frames to parquet": (
        twice_cut,
        [MAKE, f"{STORE} --frames"],
        "spk-store export st a.parquet",
        "export to .npz",
        ["spk-store export st a.npz"],
        0,
    ),
}


def do(line, typed):
    return line() if callable(line) else typed(line)


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_repair_gets_the_user_on(name, typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare, before, line, said, repairs, code = SITUATIONS[name]
    prepare()
    for step in before:
        done = do(step, typed)
        assert callable(step) or done.exit_code == 0, done.output
    wrong = typed(line)
    assert wrong.exit_code == 1, wrong.output
    assert said in wrong.output
    for step in repairs:
        done = do(step, typed)
    assert done.exit_code == code, done.output


def messages(path):
    """Yield (line, text) of every text in a file that holds a repair, `{}` for what is put in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
            parts = [
                part.value if isinstance(part, ast.Constant) else "{}"
                for argument in node.args
                for part in getattr(argument, "values", [argument])
            ]
            yield node.lineno, "".join(map(str, parts))


def commands_of(program):
    command = PROGRAMS[program]
    return command.commands if isinstance(command, click.Group) else {"": command}


def options_of(programs):
    params = [p for name in programs for c in commands_of(name).values() for p in c.params]
    return {option for p in params for option in (*p.opts, *p.secondary_opts)}


# whose commands can raise what a room's code says; the ground floors serve all of them
ROOMS = {
    "common": list(PROGRAMS),
    "manifests": list(PROGRAMS),
    "extract": ["spk-extract", "spk-store", "spk-finetune"],
    "classify": ["spk-classify", "spk-name"],
    "finetune": ["spk-finetune"],
}
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


# Commands of others: Ray's (tests/common/test_engine.py), WhisperX's.
OTHERS = re.compile(r"`ray [^`]+`|whisperx --diarize")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_option_and_command_in_a_message_exists(path):
    options = options_of(ROOMS[path.relative_to(ROOT).parts[0]])
    everywhere = options_of(PROGRAMS)
    for line, message in messages(path):
        text = OTHERS.sub("", message)
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![a-z-])", text):
            other = re.search(r"spk-[a-z]+[^;]*" + option, text)  # a command named before it
            assert option in (everywhere if other else options), f"{path}:{line}: {option}"
        for program, part in re.findall(r"(spk-(?!toolkit)[a-z]+)(?: ([a-z-]+))?", text):
            assert program in PROGRAMS, f"{path}:{line}: {program}"
            parts = commands_of(program)
            known = "" in parts or part in {*parts, ""} or f"{program} {part}" in PLAIN
            assert known, f"{path}:{line}: {program} {part}"


PLAIN = {f"{name} {word}" for name in PROGRAMS for word in ("on", "and", "writes", "made", "again")}


def test_the_messages_are_read():
    count = sum(len(list(messages(path))) for path in FILES)
    named = [text for path in FILES for _, text in messages(path) if " --" in text]
    assert count > 250
    assert len(named) > 20


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("spk-extract S1.flac store9", "S1.flac: is a recording by its suffix, expected a table"),
        ("spk-manifests describe S1.mp3", "S1.mp3: is a recording by its suffix, expected a table"),
        ("spk-extract table.csv store9 --encoder corpus/wav", "holds no config.json"),
    ],
)
def test_what_stands_where_something_else_belongs_is_called_what_it_is(made, typed, line, message):
    for name in ("S1.flac", "S1.mp3"):
        (made / name).write_bytes(b"fLaC")
    done = typed(f"{line} --audio-root corpus/wav" if "extract" in line else line)
    assert done.exit_code == 1
    assert message in done.stderr
