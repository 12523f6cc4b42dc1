"""The container file is not built here: what it names must exist, and its shell be valid."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "cluster" / "Containerfile"
PAGE = ROOT / "docs" / "how-to" / "cluster.md"


@pytest.fixture(scope="module")
def steps():
    """Return the instructions, each with its text, lines that go on put together."""
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in whole.splitlines() if line.strip()]


def constants(*names):
    """Return constants of setup.py, which installs nothing when it is only read."""
    found = {}
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id in names:
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def extras():
    """Return the names of the extras of setup.py."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())):
        if isinstance(node, ast.keyword) and node.arg == "extras_require":
            return {key.value for key in node.value.keys}
    return set()


def test_all_instructions_are_known_and_the_first_is_a_base(steps):
    names = [name for name, _ in steps]
    assert set(names) <= {"ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD"}
    assert next(name for name in names if name != "ARG") == "FROM"


def test_what_is_copied_exists_and_is_the_whole_package(steps):
    copied = {source for name, text in steps if name == "COPY" for source in text.split()[:-1]}
    assert [source for source in copied if not (ROOT / source).exists()] == []
    rooms = {name.split(".")[0] for name in constants("PACKAGES")["PACKAGES"]}
    assert rooms <= copied
    modules = {path.name for path in ROOT.glob("*.py")}
    assert {*modules, "README.md", "constraints.txt"} <= copied


def test_what_is_installed_are_extras_that_exist_and_those_of_the_page(steps):
    (asked,) = re.findall(r'"\.\[([\w,]+)\]"', " ".join(text for _, text in steps))
    assert set(asked.split(",")) <= extras()
    assert f'"spk-toolkit[{asked}]"' in PAGE.read_text()


def test_the_shell_of_each_step_is_valid(steps):
    for name, text in steps:
        if name == "RUN":
            done = subprocess.run(["sh", "-n", "-c", text], capture_output=True, check=False)
            assert done.returncode == 0, done.stderr


def test_the_documented_commands_name_the_file_and_arguments_that_it_has(steps):
    told = PAGE.read_text()
    commands = re.findall(r"^docker build .*$", told, re.MULTILINE)
    assert len(commands) == 2
    arguments = {text.split("=")[0] for name, text in steps if name == "ARG"}
    for command in commands:
        assert f"-f {FILE.relative_to(ROOT)} " in command
        assert set(re.findall(r"--build-arg (\w+)=", command)) <= arguments
        assert f"#   {command}" in FILE.read_text()
