"""The last line of a command says what to do next, and that works as it is typed."""

import os
import re
import shlex
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner

from spk.__main__ import main as spk
from spk.common.commands import LEFT_OUT
from spk.common.nearby import table_of
from spk.common.next_steps import STEPS
from spk.manifests.cli import main as manifests

FIELD = re.compile(r"\{[^}]*\}")


def commands(group=spk, name="spk", parent=None):
    """Yield (what is typed, command) of all that run."""
    context = click.Context(group, parent, name)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        typed = f"{name}{'-' if parent is None else ' '}{word}"
        if isinstance(command, click.Group):
            yield from commands(command, typed, context)
        else:
            yield typed, command


COMMANDS = dict(commands())
LINES = {step.line for steps in STEPS.values() for step in steps}
LINES = sorted(line for line in LINES if not line.startswith("{again"))


def steps_of(done, codes=(0,)):
    """Return the lines that a command offers, having ended well."""
    assert done.exit_code in codes, done.output
    lines = done.stderr.splitlines()
    offered = [line[6:] for line in lines if line.startswith(("next: ", "or:   "))]
    assert lines[len(lines) - len(offered) :] == [
        f"{'or:   ' if number else 'next: '}{line}" for number, line in enumerate(offered)
    ]
    return offered


def test_every_command_says_what_is_next_or_that_nothing_is():
    assert STEPS.keys() == COMMANDS.keys()


@pytest.mark.parametrize("line", LINES)
def test_each_line_is_one_that_its_command_takes(line):
    line = re.sub("{(recordings|clips)}", " --audio-root AUDIO", line)
    words = shlex.split(FIELD.sub("word", line.replace("{same}", " --folds 5")))
    if words[0] == "python3":  # a browser
        return
    name = words.pop(0) if words[0] in COMMANDS else f"{words.pop(0)} {words.pop(0)}"
    assert COMMANDS[name].make_context(name, words)


@pytest.mark.slow
def test_from_the_sample_each_next_line_leads_to_the_report(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line, seen = "spk-manifests sample 'my voices'", []
    while line.startswith("spk-"):
        seen.append(line)
        line, *others = steps_of(typed(line))
        seen += [f"or {other}" for other in others]
    assert [" ".join(line.split()[:2]) for line in seen] == [
        "spk-manifests sample",
        "or spk-name",
        "spk-manifests rttm",
        "spk-manifests select",
        "spk-manifests split",
        "spk-extract table.csv",
        "spk-classify sweep",
        "or spk-classify",
        "spk-classify report",
    ]
    assert line == f"python3 -m webbrowser -t {(tmp_path / 'report.html').as_uri()}"
    line = seen[-2].removeprefix("or ")
    assert line == "spk-classify fit table.csv features model"
    for _ in ("fit", "predict", "score", "report"):
        (line,) = steps_of(typed(line))
    assert line.endswith("/report-2.html")
    assert Path("report-2.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("spk-manifests describe turns.csv", "spk-manifests select turns.csv segments.csv "),
        (
            "spk-manifests leaks table.csv",
            "spk-extract table.csv features --audio-root corpus/wav ",
        ),
        (
            "spk-manifests cut turns.csv cuts --audio-root corpus/wav",
            "spk-manifests split cuts/segments.table.csv table-2.csv --times turns.csv",
        ),
        (
            "spk-manifests cut turns.csv cuts --audio-root corpus/wav --listing-only",
            "spk-manifests cut turns.csv cuts --audio-root corpus/wav",
        ),
        (
            "spk-manifests cut table.csv cuts --audio-root corpus/wav",
            "spk-extract cuts/segments.table.csv features --audio-root cuts ",
        ),
        (
            "spk-manifests cut --rttm-dir corpus/TextGrid --audio-root corpus/wav -q "
            "--output-dir cuts",
            "",
        ),
        (
            "spk-manifests cut --rttm-dir corpus/TextGrid --audio-root corpus/wav "
            "--output-dir cuts",
            "spk-manifests split cuts/segments.table.csv table-2.csv --times corpus/TextGrid",
        ),
        (
            "spk-extract table.csv store --audio-root corpus/wav --encoder demo --plan",
            "spk-extract table.csv store --audio-root corpus/wav --encoder demo",
        ),
        (
            "spk-extract table.csv store --audio-root no --encoder demo --plan",
            "spk-extract table.csv store --encoder demo --audio-root corpus/wav",
        ),
        (
            "spk-extract table.csv new --encoder nobody/none --layers 9 --revision a --plan",
            "spk-extract table.csv new --encoder small --audio-root corpus/wav",
        ),
        (
            "spk-extract turns.csv other --audio-root corpus/wav --encoder demo",
            "spk-manifests split turns.csv table-2.csv",
        ),
        ("spk-store info store", "spk-store verify store"),
        ("spk-store merge store all", "spk-store verify all"),
        ("spk-store pack store store-2.h5", "spk-store verify store-2.h5"),
        (
            "spk-store import exported.npz table.csv features",
            "spk-classify sweep table.csv features sweep-2",
        ),
        (
            "spk-classify curve table.csv store sweep --seconds 1 --draws 1",
            "spk-classify report sweep --table table.csv --audio-root corpus/wav -o report.html",
        ),
        (
            "spk-classify compare named.csv sweep/predictions.csv",
            "spk-classify report named.csv sweep --table table.csv --audio-root corpus/wav -o "
            "report.html",
        ),
        (
            "spk-classify score named.csv",
            "spk-classify report named.csv --table table.csv --audio-root corpus/wav -o "
            "report.html",
        ),
        ("spk-finetune predict fleet table.csv new.csv --audio-root corpus/wav", "spk-classify "),
        ("spk-name enrol team.voices table.csv store --layer 1", "spk-name list team.voices"),
        ("spk-name list team.voices", ""),
        ("spk-manifests export turns.csv turns.rttm", ""),
    ],
)
def test_what_is_next_works(typed, made, line, expected):
    offered = steps_of(typed(line), codes=(0, LEFT_OUT))
    assert bool(offered) == bool(expected)
    if expected:
        assert offered[0].startswith(expected)
        assert typed(offered[0]).exit_code == 0


@pytest.mark.slow
def test_after_fine_tuning_its_predictions_are_scored(typed, made):
    (config,) = Path("fleet").glob("config.yaml")
    (line,) = steps_of(typed(f"spk-finetune fit table.csv --config {config}"))
    assert line == "spk-classify score fleet/predictions.csv --table table.csv"
    assert typed(line).exit_code == 0


@pytest.mark.slow
def test_names_may_be_listened_to(typed, made):
    line = (
        "spk-name apply team.voices corpus/TextGrid/20990301_S_R001S01C01.rttm "
        "--audio-root corpus/wav --output names --threshold -1 --min-purity 0 --min-seconds 0"
    )
    (again,) = steps_of(typed(line))
    assert sorted(shlex.split(again)) == sorted([*line.split(), "--review"])
    page = Path("names", "review.html").absolute().as_uri()
    assert steps_of(typed(again)) == [f"python3 -m webbrowser -t {page}"]


@pytest.fixture
def turns(tmp_path, monkeypatch):
    """Return a table of the current folder, whose recording lies near it."""
    monkeypatch.chdir(tmp_path)
    names = ["segment_id", "audio", "start", "end", "speaker", "session"]
    rows = [(f"S1_{n}", "S1.wav", 3.0 * n, 3.0 * n + 2, "AB"[n % 2], "S1") for n in range(30)]
    table = pd.DataFrame(rows, columns=names)
    table.to_csv("turns.csv", index=False)
    return table


def offered(*words, program="spk-manifests", group=manifests):
    return steps_of(CliRunner().invoke(group, words, prog_name=program))


def test_quiet_commands_and_those_that_failed_say_nothing(turns):
    assert offered("describe", "turns.csv")
    assert not offered("describe", "turns.csv", "-q")
    failed = CliRunner().invoke(manifests, ["describe", "nowhere.csv"])
    assert (failed.exit_code, failed.stderr.count("\n")) == (1, 1)
    assert "next" not in CliRunner().invoke(manifests, ["describe", "--help"]).output


def test_behind_the_one_door_the_next_line_is_too(turns):
    (line,) = offered("manifests", "describe", "turns.csv", program="spk", group=spk)
    assert line == "spk manifests select turns.csv segments.csv --min-seconds 1.5"


def test_new_files_have_names_at_which_nothing_lies(turns):
    Path("table.csv").touch()
    Path("table-2.csv").symlink_to("nowhere")
    assert offered("select", "turns.csv", "segments.csv") == [
        "spk-manifests split segments.csv table-3.csv"
    ]


def test_recordings_are_looked_for_near_the_table(turns):
    def root():
        (line,) = offered("split", "turns.csv", "table.csv", "--overwrite")
        words = shlex.split(line)
        return words[words.index("--audio-root") + 1] if "--audio-root" in words else None

    assert root() == "AUDIO"
    done = CliRunner().invoke(manifests, ["split", "turns.csv", "table.csv"])
    assert done.stderr.splitlines()[0] == (
        "AUDIO stands for the folder of the recordings, which are not near the table"
    )
    deep = Path("a b", "c", "wav")
    deep.mkdir(parents=True)
    (deep / "S1.wav").touch()
    assert root() == "a b/c/wav"
    Path("S1.wav").touch()
    assert root() == "."
    turns["audio"] = os.path.abspath("S1.wav")
    turns.to_csv("turns.csv", index=False)
    assert root() is None


def test_a_table_that_is_split_goes_on_to_features(turns):
    turns.assign(split=["train", "test"] * 15).to_parquet("table.parquet")
    (line,) = offered("describe", "table.parquet")
    assert line == "spk-extract table.parquet features --audio-root AUDIO --encoder small"


def test_cut_files_without_times_are_not_said_to_be_split_by_time(turns):
    turns.assign(start=0.0, end=2.0).to_csv("cut.csv", index=False)
    assert offered("describe", "cut.csv") == []


@pytest.mark.slow
def test_what_is_fitted_is_tried_as_the_sweep_was(typed, made):
    line = "spk-classify sweep table.csv store new --classifiers centroid --folds 3 --no-refit"
    fit = steps_of(typed(line), codes=(0, LEFT_OUT))[-1]
    words = "spk-classify fit table.csv store model-2 --classifiers centroid --folds 3 --no-refit"
    assert sorted(fit.split()) == sorted(words.split())
    assert typed(fit).exit_code == 0


def test_the_table_of_predictions_is_the_only_one_near_with_their_split(turns):
    turns["split"] = ["train", "test"] * 15
    turns.to_csv("table.csv", index=False)
    Path("sweep").mkdir()
    test = turns[turns["split"] == "test"]
    test.assign(predicted="A", score=1.0, model="m").to_csv("sweep/predictions.csv", index=False)
    assert table_of("sweep/predictions.csv") == "table.csv"
    turns.assign(split="train").to_csv("other.csv", index=False)  # not so divided
    test.drop(columns="audio").to_csv("named.csv", index=False)  # no segment table
    assert table_of("sweep/predictions.csv") == "table.csv"
    turns.to_parquet("again.parquet")
    assert table_of("sweep/predictions.csv") is None, "which of both is not known"
    assert table_of("nowhere.csv") is None
