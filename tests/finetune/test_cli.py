"""What is typed becomes settings."""

import pytest
from click.testing import CliRunner

from spk.common.errors import InputError
from spk.finetune.cli import main


@pytest.fixture
def seen(monkeypatch):
    """Return the list of settings that runs begin with; each ends there."""
    found = []

    def begin(table, settings, **hooks):
        found.append(settings)
        raise InputError("run: is not begun here")

    monkeypatch.setattr("spk.manifests.table.read_table", lambda path: None)
    monkeypatch.setattr("spk.manifests.splits.tasks.split_method", lambda path: "unknown")
    monkeypatch.setattr("spk.finetune.run.finetune", begin)
    return found


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ()),
        (("A,B",), ("A", "B")),
        (("A", "B"), ("A", "B")),
        (("A, B", "C"), ("A", "B", "C")),
    ],
)
def test_sessions_are_repeated_or_joined_by_commas(seen, words, names):
    typed = [word for text in words for word in ("--sessions", text)]
    done = CliRunner().invoke(main, ["fit", "table.csv", *typed])
    assert (done.exit_code, done.output) == (1, "run: is not begun here\n")
    assert [settings.sessions for settings in seen] == [names]


def test_empty_names_of_sessions_are_refused(seen):
    done = CliRunner().invoke(main, ["fit", "table.csv", "--sessions", "A,,B"])
    assert done.exit_code == 1
    assert "--sessions: value is a list of 3, expected a list of names, each once" in done.output
    assert seen == []
