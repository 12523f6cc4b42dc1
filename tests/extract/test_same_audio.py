"""Features are found by the samples they are of: recording, channel and span, never the label."""

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import noise_meeting

from spk.extract.encoder.encoder import Encoder
from spk.extract.options import ExtractOptions
from spk.extract.run import run_extraction
from spk.extract.store import shard
from spk.extract.store.maintenance import verify_store
from spk.extract.store.reader import FeatureStore
from spk.manifests.table import check_table, segment_id

SPANS = [(0.2, 0.9), (1.0, 2.1), (2.1, 2.6), (2.8, 3.4)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a folder with a recording of two channels and its store, and the table of both."""
    root = tmp_path_factory.mktemp("made")
    table = noise_meeting(root, "S01.wav", SPANS, speakers=("A", "B"), channels=2)
    run_extraction(table, root / "store", options(root))
    return root, table


@pytest.fixture
def corpus(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "made")
    return tmp_path / "made", made[1]


@pytest.fixture
def encoded(monkeypatch):
    """Return the number of samples of each segment that is encoded, as it goes on."""
    lengths, encode = [], Encoder.encode_async

    def counted(self, waveforms, *settings):
        lengths.extend(map(len, waveforms))
        return encode(self, waveforms, *settings)

    monkeypatch.setattr(Encoder, "encode_async", counted)
    return lengths


def options(root, **changes):
    known = {"encoder": "mfcc", "audio_root": str(root), "workers": 0}
    return ExtractOptions(**{**known, **changes})


def relabelled(table, **columns):
    """Return the table with other columns, and the ids that then follow."""
    table = table.assign(**columns)
    channels = table["channel"] if "channel" in table else [""] * len(table)
    names = (table[name] for name in ("session", "speaker", "start", "end"))
    ids = [segment_id(*row) for row in zip(*names, channels, strict=True)]
    return check_table(table.assign(segment_id=ids))


def rows_of(store, table):
    return FeatureStore.open(store).read(table["segment_id"])


@pytest.mark.parametrize(
    "names",
    [{"A": "Ann", "B": "B"}, {"A": "B", "B": "A"}],
    ids=["one renamed", "two swapped"],
)
def test_other_names_encode_nothing_and_get_the_same_features(corpus, encoded, names):
    root, table = corpus
    renamed = relabelled(table, speaker=table["speaker"].map(names))
    summary = run_extraction(renamed, root / "store", options(root))
    assert encoded == []
    changed = sum(ours != theirs for ours, theirs in names.items()) * 2
    assert (summary.segments, summary.new, summary.shared) == (4, 0, changed)
    assert f"{changed} take those of the same samples under another segment_id" in str(summary)
    np.testing.assert_array_equal(rows_of(root / "store", renamed), rows_of(root / "store", table))
    assert verify_store(root / "store") == []


def test_two_labels_on_one_span_are_encoded_once(corpus, encoded):
    root, table = corpus
    both = pd.concat([table, relabelled(table, speaker="Noise")], ignore_index=True)
    summary = run_extraction(both, root / "new", options(root, batch_seconds=0.5))
    assert len(encoded) == summary.new == summary.shared == 4
    features = rows_of(root / "new", both)
    np.testing.assert_array_equal(features[:4], features[4:])
    assert run_extraction(both, root / "new", options(root)).new == len(encoded) - 4 == 0


def test_a_label_that_is_added_to_a_span_later_is_not_encoded(corpus, encoded):
    root, table = corpus
    both = pd.concat([relabelled(table, speaker="0"), table], ignore_index=True)
    assert run_extraction(both, root / "store", options(root)).shared == 4
    assert encoded == []


@pytest.mark.parametrize("kind", ["pooled", "frames"])
def test_frames_and_float32_are_taken_to_the_bit(corpus, encoded, kind):
    root, table = corpus
    settings = options(root, frames=kind == "frames", store_dtype="float32")
    run_extraction(table, root / kind, settings)
    encoded.clear()
    renamed = relabelled(table, speaker="X")
    run_extraction(renamed, root / kind, settings)
    assert encoded == []
    store = FeatureStore.open(root / kind)
    for ours, theirs in zip(renamed["segment_id"], table["segment_id"], strict=True):
        sums = {name: row for shard in store.shards for name, row in sums_of(shard)}
        assert sums[ours] == sums[theirs]


def sums_of(one):
    names = one.columns["segment_id"].tolist()
    return list(zip(names, one.crc32.tolist(), strict=True))


def test_a_span_shifted_by_one_sample_is_encoded(corpus, encoded):
    root, table = corpus
    later = table[["start", "end"]] + 1 / 16000
    shifted = relabelled(table, **{name: later[name] for name in later})
    summary = run_extraction(shifted.assign(speaker="X"), root / "store", options(root))
    assert (len(encoded), summary.new, summary.shared) == (4, 4, 0)


def test_another_channel_of_the_same_span_is_encoded(corpus, encoded):
    root, table = corpus
    run_extraction(relabelled(table, channel="1"), root / "store", options(root))
    assert len(encoded) == 4
    encoded.clear()
    own = relabelled(table, channel="0")  # the one that --channel names
    assert run_extraction(own, root / "store", options(root)).shared == 4
    assert encoded == []


def test_channels_recordings_and_ends_of_one_table_are_told_apart(corpus, encoded):
    root, table = corpus
    others = [
        noise_meeting(root, "S02.wav", SPANS, channels=2, seed=1),
        relabelled(table, channel="1"),
        relabelled(table.assign(start=table["start"] + 0.1)),
        relabelled(table.assign(end=table["end"] - 0.1)),
    ]
    together = check_table(pd.concat([table, *others], ignore_index=True))
    summary = run_extraction(together, root / "new", options(root))
    assert (len(encoded), summary.new, summary.shared) == (20, 20, 0)
    assert len(np.unique(rows_of(root / "new", together), axis=0)) == 20


def test_audio_that_changed_under_its_name_is_encoded(corpus, encoded):
    root, table = corpus
    samples, rate = soundfile.read(root / "S01.wav", dtype="int16")
    samples[int(0.5 * rate)] += 1  # one sample of the first segment
    soundfile.write(root / "S01.wav", samples, rate)
    renamed = relabelled(table, speaker="X")
    summary = run_extraction(renamed, root / "store", options(root))
    assert (encoded, summary.new, summary.shared) == ([int(0.7 * rate)], 1, 3)


def test_a_recording_under_another_name_is_the_same_audio(corpus, encoded):
    root, table = corpus
    (root / "S01.wav").rename(root / "moved.wav")
    moved = relabelled(table.assign(audio="moved.wav"), session="S02")
    assert run_extraction(moved, root / "store", options(root)).shared == 4
    assert encoded == []


def test_rejected_segments_are_rejected_under_each_label(tmp_path):
    table = noise_meeting(tmp_path, "S01.wav", SPANS, speakers=("A",), silent=1.0)
    both = pd.concat([table, relabelled(table, speaker="B")], ignore_index=True)
    summary = run_extraction(both, tmp_path / "store", options(tmp_path))
    assert summary.rejected == {"silent": 2}
    assert len(FeatureStore.open(tmp_path / "store").rejected()) == 2


def test_rows_from_before_digests_are_read_and_found_by_their_span(corpus, encoded, monkeypatch):
    root, table = corpus
    own = table.assign(segment_id=[f"utt{n}" for n in range(4)])  # ids that do not name the span
    with monkeypatch.context() as older:
        older.setattr(shard, "encode_columns", without_digests(shard.encode_columns))
        run_extraction(table, root / "old", options(root))
        run_extraction(own, root / "old own", options(root))
    encoded.clear()
    assert not FeatureStore.open(root / "old").rows()["audio_digest"].any()
    assert run_extraction(relabelled(table, speaker="X"), root / "old", options(root)).shared == 4
    assert encoded == []
    renamed = own.assign(segment_id=own["segment_id"] + "b")
    assert run_extraction(renamed, root / "old own", options(root)).new == 4


def without_digests(encode):
    def older(columns, *settings):
        columns = {**columns, "audio_digest": [0] * len(columns["segment_id"])}
        small = encode(columns, *settings)
        return {name: values for name, values in small.items() if name != "audio_digest"}

    return older


def test_the_digest_is_a_column_of_the_store(corpus):
    digests = FeatureStore.open(corpus[0] / "store").rows()["audio_digest"]
    assert digests.dtype == np.dtype("<u8")
    assert len(set(digests.tolist())) == 4
    assert digests.all()
