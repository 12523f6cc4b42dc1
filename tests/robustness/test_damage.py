"""A share of `damage.py`: random damage is found, never read, and repaired as the message says."""

import shutil

import numpy as np
import pytest

from spk.extract.store import maintenance
from spk.extract.store import shard as shard_module
from spk.extract.store.shard import read_shard

pytestmark = pytest.mark.slow

PLACES = 10


@pytest.fixture(scope="module")
def originals(damage, scene, tmp_path_factory):
    """Return the stores that are damaged."""
    folder = tmp_path_factory.mktemp("originals")
    return damage.make_originals(folder, scene.make_corpus(folder / "corpus"))


@pytest.fixture
def flipped(originals, tmp_path, damage, monkeypatch):
    """Return a function that flips a byte of the first row's features in a copy of a store."""

    def flip(kind):
        copy = tmp_path / "copy"
        shutil.copytree(originals[kind].path, copy)
        path = min((copy / "shards").iterdir())
        place = read_shard(path).start
        content = bytearray(path.read_bytes())

        def change(*_):
            content[place] ^= 1
            path.write_bytes(content)
            return path, place

        monkeypatch.setattr(damage, "change", change)
        return damage.try_one(originals[kind], copy, "flip", np.random.default_rng(0))

    return flip


def test_no_damage_is_read_or_missed_and_each_is_repaired(damage, originals, tmp_path):
    counts, broken = damage.damage(PLACES, 3, tmp_path, originals)
    assert broken == []
    every = sum(counts.values(), damage.Counter())
    assert every["changed"] == every["back as it was"] == PLACES
    assert every["wrong reads"] == every["missed"] == 0
    assert every["found by verify"] + every["nothing promised"] == PLACES
    assert 0 < every["found by read"] <= every["found by verify"]


def test_a_flipped_byte_of_features_harms_one_row_and_brings_back_its_shard(flipped, originals):
    counts, broken = flipped("pooled")
    assert broken == []
    (first, *_) = sorted((originals["pooled"].path / "shards").iterdir())
    rows = len(read_shard(first).crc32)
    assert (counts["rows harmed"], counts["rows extracted again"]) == (1, rows)
    assert counts["needlessly"] == rows - 1


@pytest.mark.parametrize("kind", ["pooled", "frames"])
def test_a_store_that_does_not_check_is_caught_by_the_harness(flipped, monkeypatch, kind):
    monkeypatch.setattr(shard_module, "_check_crc32", lambda *_: None)
    counts, broken = flipped(kind)
    assert counts["wrong reads"] == 1
    assert any(what.startswith("read another value of ") for what in broken)


def test_a_verify_that_does_not_look_is_caught_by_the_harness(flipped, monkeypatch):
    monkeypatch.setattr(maintenance, "_shard_faults", lambda path, check_name: [])
    counts, broken = flipped("pooled")
    assert counts["missed"] == 1
    assert any(what.startswith("verify said 0") for what in broken)
    assert counts["back as it was"] == 0


def test_shards_without_their_description_are_merged_to_a_store(originals, scene, tmp_path):
    shutil.copytree(originals["pooled"].path, tmp_path / "copy")
    (tmp_path / "copy" / "store.json").unlink()
    shards = " ".join(map(str, sorted((tmp_path / "copy" / "shards").iterdir())))
    scene.must(f"spk-store merge {shards} {tmp_path}/new")
    assert scene.contents(tmp_path / "new") == originals["pooled"].truth
