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

    monkeypatch.setattr("spk.finetune.run.train_table", begin)
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


@pytest.mark.parametrize(
    ("held", "words", "seed"),
    [
        ("seed: 42\n", (), 42),  # version 0.1.0's default: its runs go on by the same command
        ("seed: 42\n", ("--seed", "7"), 7),
        ("seed: 7\n", ("--config", "transfer"), 42),  # which the preset names
        ("max_epochs: 3\n", (), 0),
        ("of: another program\n", (), 0),
        (None, (), 0),
    ],
)
def test_a_run_goes_on_with_its_own_seed_unless_one_is_named(seen, tmp_path, held, words, seed):
    if held is not None:
        (tmp_path / "config.yaml").write_text(held)
    CliRunner().invoke(main, ["fit", "table.csv", "--log-dir", str(tmp_path), *words])
    assert [settings.seed for settings in seen] == [seed]


def test_each_quiet_worker_is_told_to_be_quiet(monkeypatch):
    """Workers are processes of their own, which know nothing of the command's logging."""
    from spk.common.log import is_quiet
    from spk.finetune import run

    quiet = []
    monkeypatch.setattr(run, "_train_all", lambda *_: quiet.append(is_quiet()) or ([], False))
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    for wanted in (True, False):
        with pytest.raises(SystemExit):
            run._worker(None, "cpu", 1, wanted)
    assert quiet == [True, False]
