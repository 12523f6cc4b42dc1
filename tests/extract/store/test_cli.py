"""Every spk-store command does its one thing, and tells what the user can repair in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from spk.extract.store.cli import store
from spk.extract.store.reader import FeatureStore

Make = Callable[..., np.ndarray]
IDS = [f"s{number}" for number in range(10)]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(store, [str(argument) for argument in arguments])


def test_info_tells_what_is_there(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    result = run("info", tmp_path / "a")
    assert result.exit_code == 0
    for line in ("segments: 10", "layers: [0, 2, 5]", "  encoder: tiny", "rejected: none"):
        assert line in result.output.splitlines()


def test_verify_says_so_when_all_is_well(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    result = run("verify", tmp_path / "a")
    assert (result.exit_code, result.output) == (
        0,
        f"{tmp_path / 'a'}: every byte is as it was written\n",
    )


def test_verify_lists_the_faults_and_exits_1(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS)
    shard = next((tmp_path / "a" / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1])
    result = run("verify", tmp_path / "a")
    assert result.exit_code == 1
    assert shard.name in result.stdout
    assert "1 fault, expected none" in result.stderr


def test_merge_pack_and_export_write_what_they_say(tmp_path: Path, make_store: Make) -> None:
    make_store(tmp_path / "a", IDS[:4])
    make_store(tmp_path / "b", IDS[4:])
    result = run("merge", tmp_path / "a", tmp_path / "b", tmp_path / "all")
    assert result.stdout == f"{tmp_path / 'all'}: 10 segments of 2 stores\n"
    assert run("pack", tmp_path / "all", tmp_path / "all.h5").exit_code == 0
    assert FeatureStore.open(tmp_path / "all.h5").ids().tolist() == IDS
    result = run("export", tmp_path / "all.h5", tmp_path / "all.npz")
    assert result.output == f"{tmp_path / 'all.npz'}: 10 segments\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "absent"),
        ("verify", "absent"),
        ("merge", "absent", "out"),
        ("pack", "absent", "out.h5"),
        ("export", "absent", "out.npz"),
    ],
)
def test_an_absent_store_is_one_line_and_exit_1(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert (
        result.stderr == "absent: no store.json there, expected a store; make it with spk-extract\n"
    )
