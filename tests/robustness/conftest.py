"""Commands as a user types them, and the scripts of `campaigns`."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from spk.classify.cli import main as classify
from spk.extract.cli import main as extract
from spk.extract.store.cli import store
from spk.finetune.cli import main as finetune
from spk.manifests.cli import main as manifests

CAMPAIGNS = Path(__file__).with_name("campaigns")
COMMANDS = {
    "spk-manifests": manifests,
    "spk-extract": extract,
    "spk-store": store,
    "spk-classify": classify,
    "spk-finetune": finetune,
}


def _typed(line: str) -> Result:
    """Run a command line; anything not reported in one line is our fault, and raised."""
    name, *words = line.split()
    done = CliRunner().invoke(COMMANDS[name], words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def _load(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(CAMPAIGNS)  # the scripts import each other
        path = CAMPAIGNS / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"campaigns_{name}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look up their module
        spec.loader.exec_module(module)
        return module


@pytest.fixture(scope="session")
def typed() -> Callable[[str], Result]:
    """Return a function that runs a command as a user types it."""
    return _typed


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Return a function that runs a command in an empty folder and expects a one-line refusal."""
    monkeypatch.chdir(tmp_path)

    def run(line: str, longest: int = 1000) -> str:
        done = _typed(line)
        assert done.exit_code == 1, done.output
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert len(done.stderr) < longest
        return done.stderr.strip()

    return run


@pytest.fixture(scope="session")
def one_row() -> Callable[..., pd.DataFrame]:
    """Return a function that makes a segment table of one row, with changes."""

    def table(**changes: object) -> pd.DataFrame:
        row = {"segment_id": "a", "audio": "a.wav", "start": 0.0, "end": 1.0}
        return pd.DataFrame([{**row, "speaker": "p", "session": "s", **changes}])

    return table


@pytest.fixture(scope="session")
def fuzz() -> ModuleType:
    """Return the script `fuzz.py`."""
    return _load("fuzz")


@pytest.fixture(scope="session")
def forge() -> ModuleType:
    """Return the script `forge.py`."""
    return _load("forge")


@pytest.fixture(scope="session")
def scene() -> ModuleType:
    """Return the script `scene.py`."""
    return _load("scene")


@pytest.fixture(scope="session")
def damage() -> ModuleType:
    """Return the script `damage.py`."""
    return _load("damage")


@pytest.fixture(scope="session")
def disk() -> ModuleType:
    """Return the script `disk.py`."""
    return _load("disk")


@pytest.fixture(scope="session")
def two_at_once() -> ModuleType:
    """Return the script `two_at_once.py`."""
    return _load("two_at_once")


@pytest.fixture(scope="session")
def machines() -> ModuleType:
    """Return the script `machines.py`."""
    return _load("machines")


@pytest.fixture(scope="session")
def network() -> ModuleType:
    """Return the script `network.py`."""
    return _load("network")
