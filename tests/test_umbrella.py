"""The command `spk`: one door to the six commands, and `spk info`."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest
from click.testing import CliRunner

from spk.__main__ import COMMANDS, main
from spk.classify.cli import main as classify
from spk.classify.naming.cli import main as naming
from spk.extract.cli import main as extract
from spk.extract.store.cli import store
from spk.finetune.cli import main as finetune
from spk.info import info
from spk.manifests.cli import main as manifests

OLD = {
    "manifests": manifests,
    "extract": extract,
    "store": store,
    "classify": classify,
    "name": naming,
    "finetune": finetune,
    "info": info,
}
HEAVY = ("torch", "transformers", "numpy", "pandas", "h5py", "sklearn", "matplotlib", "yaml")


def test_each_of_the_commands_is_behind_the_door():
    assert {name: main.get_command(None, name) for name in COMMANDS} == OLD


@pytest.mark.parametrize("name", COMMANDS)
def test_the_door_tells_what_each_command_does_in_its_own_words(name):
    assert COMMANDS[name][2] == OLD[name].get_short_help_str(limit=1000)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_behind_the_door_is_the_commands_own(name):
    behind = CliRunner().invoke(main, [name, "--help"], prog_name="spk")
    own = CliRunner().invoke(OLD[name], ["--help"], prog_name=f"spk {name}")
    assert (behind.exit_code, behind.output) == (0, own.output)


def test_a_command_that_is_not_there_is_refused_by_name():
    done = CliRunner().invoke(main, ["extrakt"])
    assert done.exit_code == 2
    assert "No such command 'extrakt'. Did you mean 'extract'?" in done.output


def test_what_can_be_repaired_is_one_line_behind_the_door_too():
    done = CliRunner().invoke(main, ["manifests", "describe", "nowhere.csv"])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert done.output.startswith("nowhere.csv: ")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["finetune", "fit", "--help"]])
def test_the_door_opens_without_anything_heavy(words):
    code = (
        "import sys; from spk.__main__ import main; "
        "main(args=sys.argv[1:], standalone_mode=False); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_of_the_door_imports_no_command():
    modules = [f"spk.{module}" for module, _, _ in COMMANDS.values()]
    code = (
        "import sys; from spk.__main__ import main; main(args=['--help'], standalone_mode=False); "
        f"print([name for name in {modules} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_runs_the_package_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "spk", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"spk, version {version('spk-toolkit')}\n"


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("spk ext", "extract"),
        ("spk classify sw", "sweep"),
        ("spk extract --pooli", "--pooling"),
        ("spk extract --pooling mean+", "mean+std"),
        ("spk finetune fit --loss a", "aam"),
        ("spk finetune fit --pretr", None),  # a spelling of before
        ("spk extract --audio_", None),
    ],
)
def test_the_shell_completes_what_is_shown(words, completed):
    """As bash asks it, by the line of docs/reference/index.md."""
    parts = words.split()
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(parts) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "from spk.__main__ import main; main(prog_name='spk')"],
        env={**os.environ, **asked, "_SPK_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = [line.partition(",")[2] for line in done.stdout.split()]
    assert (completed in found) if completed else not found
