"""STORE.rejected.csv says what the store says, however a run ends."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import noise_meeting

from spk.common.errors import InputError
from spk.extract.options import ExtractOptions
from spk.extract.pipeline.runner import ExtractionRun
from spk.extract.run import run_extraction
from spk.extract.store.layout import rejected_path, write_rejected
from spk.extract.store.maintenance import merge_stores
from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter

SILENT = ["S_001-M_0000.0000_0002.0000", "S_001-M_0002.0000_0004.0000"]


@pytest.fixture
def corpus(tmp_path):
    """Return a folder and a table: two silent segments, then four usable ones, 2 s each."""
    spans = [(start, start + 2) for start in range(0, 12, 2)]
    return tmp_path, noise_meeting(tmp_path, "S.wav", spans, silent=4.0)


def settings(root, **changes):
    return ExtractOptions(
        encoder="demo", audio_root=str(root), workers=0, batch_seconds=4.0, **changes
    )


def listed(store):
    return pd.read_csv(rejected_path(store))["segment_id"].tolist()


@pytest.mark.parametrize("problem", [InputError, KeyboardInterrupt, RuntimeError])
def test_what_was_rejected_before_a_run_broke_is_listed(corpus, monkeypatch, problem):
    root, table = corpus
    take = ExtractionRun._usable

    def breaking(self, read, writing):
        if read[0][0].start > 3:
            raise problem
        return take(self, read, writing)

    monkeypatch.setattr(ExtractionRun, "_usable", breaking)
    with pytest.raises(problem):
        run_extraction(table, root / "store", settings(root))
    assert listed(root / "store") == SILENT
    assert [row["segment_id"] for row in FeatureStore.open(root / "store").rejected()] == SILENT


def test_a_merged_store_has_its_list(corpus):
    root, table = corpus
    for part in (1, 2):
        run_extraction(table, root / str(part), settings(root, shard=f"{part}/2"))
    assert merge_stores([root / "1", root / "2"], root / "all") == 4
    assert sorted(listed(root / "all")) == SILENT


def test_the_list_does_not_depend_on_what_was_rejected_first(tmp_path, store_config):
    for name, order in (("a", "xyz"), ("b", "zxy")):
        with StoreWriter(tmp_path / name, store_config) as writer:
            for segment_id in order:
                writer.reject(segment_id, "silent", "all samples are 0")
            writer.commit()
            write_rejected(tmp_path / name, writer.rejections.values())
    assert listed(tmp_path / "a") == listed(tmp_path / "b") == ["x", "y", "z"]


def test_the_list_goes_when_nothing_is_rejected(tmp_path, store_config, row):
    with StoreWriter(tmp_path / "a", store_config) as writer:
        writer.reject("s", "silent", "all samples are 0")
        writer.commit()
        write_rejected(tmp_path / "a", writer.rejections.values())
    assert listed(tmp_path / "a") == ["s"]
    with StoreWriter(tmp_path / "a", store_config) as writer:
        writer.add("s", np.ones((3, 4)), **row)
        writer.commit()
        write_rejected(tmp_path / "a", writer.rejections.values())
    assert not (tmp_path / "a.rejected.csv").exists()


def test_another_rate_is_reported_before_there_is_a_store(corpus):
    root, table = corpus
    rate = 44100
    soundfile.write(root / "T.wav", np.random.default_rng(1).uniform(-0.5, 0.5, rate), rate)
    more = table.tail(1).assign(segment_id="T", audio="T.wav", start=0.0, end=0.5)
    table = pd.concat([table, more], ignore_index=True)
    with pytest.raises(InputError, match=r"T\.wav: sample rate is 44100 Hz.*pass --resample"):
        run_extraction(table, root / "store", settings(root))
    assert not (root / "store").exists()
    assert run_extraction(table, root / "store", settings(root, resample=True)).new == 5


def test_a_check_of_nothing_but_rejected_segments_is_no_check(corpus):
    root, table = corpus
    with pytest.raises(InputError, match="--verify: none of the 2 segments drawn can be used"):
        run_extraction(table.head(2), root / "store", settings(root, verify=5))
