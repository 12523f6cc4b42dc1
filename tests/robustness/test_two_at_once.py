"""A share of `two_at_once.py`: one does it, the other is told, and no reader sees a wrong row."""

import time

import pytest

from spk.common.locks import folder_lock

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pairs(two_at_once, scene, tmp_path_factory):
    """Return the pairs of commands, with what each alone leaves."""
    folder = tmp_path_factory.mktemp("pairs")
    corpus = scene.make_corpus(folder / "corpus")
    return {p.name: p for p in two_at_once.make_pairs(corpus, folder, fleet=False)}


@pytest.mark.parametrize("name", ["extract", "merge", "cut", "sweep", "fit"])
def test_two_commands_on_one_folder_leave_what_one_leaves(two_at_once, pairs, tmp_path, name):
    rng = two_at_once.np.random.default_rng(5)
    counts = two_at_once.Counter()
    for number in range(2):
        assert two_at_once.try_pair(pairs[name], tmp_path / str(number), rng, counts) == []
    assert counts["both did it"] + counts["one was told"] == 2


def test_a_reader_beside_a_writer_sees_no_wrong_row(two_at_once, tmp_path):
    counts, broken = two_at_once.read_many(tmp_path, 1.0)
    assert broken == []
    assert counts["wrong"] == counts["lost"] == counts["refused"] == 0
    assert counts["rows read"] > counts["reads"] > 1


def test_the_dead_and_other_machines_block_nobody(two_at_once, tmp_path):
    counts, broken = two_at_once.dead_locks(tmp_path, 2)
    assert broken == []
    assert counts["taken over"] == counts["locks of the dead"] == 6


def test_a_second_sweep_is_told(pairs, two_at_once, told, tmp_path):
    line = pairs["sweep"].lines[0].replace("OUT", "swept")
    with folder_lock(tmp_path / "swept"):
        assert "swept: writing is locked by" in told(line)


def test_a_shard_that_grows_under_its_name_is_caught_by_the_harness(
    two_at_once, tmp_path, monkeypatch
):
    def careless(temporary, path):
        path.write_bytes(b"half")
        time.sleep(0.3)  # long enough for a reader on a loaded machine
        temporary.replace(path)

    monkeypatch.setattr("spk.extract.store.writer.publish", careless)
    counts, broken = two_at_once.read_many(tmp_path, 2.0)
    assert counts["refused"] > 0
    assert broken
