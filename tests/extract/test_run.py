"""The whole flow: a table and its audio become a store."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import weakref

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner
from helpers import noise_meeting

from spk.common.engine import running
from spk.common.errors import InputError
from spk.extract.options import ExtractOptions, parse_layers
from spk.extract.pipeline import batching
from spk.extract.pipeline.batching import AHEAD, make_batches, sort_segments
from spk.extract.pipeline.runner import WAITING, SplitOnOutOfMemory
from spk.extract.planning import choose_segments, plan
from spk.extract.run import run_extraction
from spk.extract.store.cli import store as commands
from spk.extract.store.maintenance import store_info
from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter
from spk.extract.verification import cosines, relative_difference
from spk.manifests.table import check_table, segment_id, write_table

SAME = 1e-5  # relative, float32: batches differ in shape, and kernels in the order they add up
SPEAKERS = ("000-M", "001-M", "002-M")
DURATIONS = (0.3, 2.0, 0.7, 1.1, 0.05, 3.1, 0.9, 0.4, 1.6, 0.3, 2.2, 0.5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Return a folder with two recordings and a table of 24 usable segments in mixed order."""
    root = tmp_path_factory.mktemp("corpus")
    edges = 0.25 + np.cumsum([0.0, *DURATIONS])
    spans = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    parts = [
        noise_meeting(root, f"{session}.flac", spans, speakers=SPEAKERS, channels=2, seed=seed)
        for seed, session in enumerate(("S02", "S01"))
    ]
    return root, pd.concat(parts, ignore_index=True)


TWO_CHANNELS = "recordings have up to 2 channels, and only channel 0 is read"


def row(audio, start, end, speaker="001-M", session="S01"):
    return {
        "segment_id": segment_id(session, speaker, start, end),
        "audio": audio,
        "start": start,
        "end": end,
        "speaker": speaker,
        "session": session,
    }


def settings(root, **changes):
    known = {"encoder": "demo", "audio_root": str(root), "workers": 0, "store_dtype": "float32"}
    return ExtractOptions(**{**known, **changes})


def but_channels(lines):
    """Return a log that keeps all lines in `lines` but the one on the corpus' two channels."""
    return lambda line: None if line.startswith(TWO_CHANNELS) else lines.append(line)


def features(store, ids):
    opened = FeatureStore.open(store)
    return np.stack([opened.read(ids, layer) for layer in opened.layers], axis=1)


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """Return the store of one plain run, and its summary."""
    root, table = corpus
    store = tmp_path_factory.mktemp("whole") / "store"
    return store, run_extraction(table, store, settings(root))


def test_every_segment_has_features_of_its_own_samples(corpus, whole):
    from spk.extract.encoder.encoder import load_encoder

    root, table = corpus
    store, summary = whole
    assert (summary.segments, summary.new, summary.rejected) == (24, 24, {})
    encoder = load_encoder("demo")
    found = features(store, table["segment_id"].tolist())
    for vector, line in zip(found, table.itertuples(), strict=True):
        samples, _ = soundfile.read(root / line.audio, dtype="float32")
        part = samples[int(line.start * 16000 + 0.5) : int(line.end * 16000 + 0.5), 0]
        expected, _ = encoder.encode([part], layers=range(6))
        assert relative_difference(vector, expected[0]) < SAME


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_seconds": 0.1},
        {"batch_seconds": 7.0},
        {"workers": 2},
        {"batch_seconds": 7.0, "workers": 3},
    ],
)
def test_batches_and_workers_do_not_change_rows(corpus, whole, tmp_path, changes):
    root, table = corpus
    run_extraction(table, tmp_path / "store", settings(root, **changes))
    ids = table["segment_id"].tolist()
    expected = features(whole[0], ids)
    assert relative_difference(features(tmp_path / "store", ids), expected) < SAME


@pytest.mark.parametrize("kind", ["layer_encoder", "group_encoder"])
def test_rows_are_those_of_a_plain_loop(corpus, tmp_path, kind, request):
    import torch
    from transformers import AutoFeatureExtractor, AutoModel

    root, table = corpus
    folder = request.getfixturevalue(kind)
    run_extraction(table, tmp_path / "store", settings(root, encoder=str(folder)))
    found = features(tmp_path / "store", table["segment_id"].tolist())
    processor = AutoFeatureExtractor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    for vectors, line in zip(found, table.itertuples(), strict=True):
        samples, _ = soundfile.read(root / line.audio)
        part = samples[int(line.start * 16000 + 0.5) : int(line.end * 16000 + 0.5), 0]
        made = processor(part, sampling_rate=16000, return_tensors="pt")
        with torch.inference_mode():
            out = model(made["input_values"], output_hidden_states=True)
        states = torch.stack([*out.hidden_states[:-1], out.last_hidden_state])[:, 0].numpy()
        expected = np.concatenate([states.mean(axis=1), states.std(axis=1)], axis=1)
        assert relative_difference(vectors, expected) < SAME


def test_the_audio_held_at_once_does_not_grow_with_the_table(corpus, tmp_path, monkeypatch):
    root, _ = corpus
    rows = [row("S01.flac", i / 50, i / 50 + 0.1) for i in range(600)]
    read, add, given, most = batching.read_segment, StoreWriter.add, [], []

    def noted(segment, reading):
        audio = read(segment, reading)
        given.append(weakref.ref(audio.samples))
        return audio

    def counted(self, *row, **rest):
        most.append(sum(samples() is not None for samples in given))
        add(self, *row, **rest)

    monkeypatch.setattr(batching, "read_segment", noted)
    monkeypatch.setattr(StoreWriter, "add", counted)
    table = check_table(pd.DataFrame(rows))
    run_extraction(table, tmp_path / "store", settings(root, batch_seconds=0.41, workers=2))
    # batches of four: those read ahead, two at the device, those before the writer, two in hand
    assert len(most) == 600
    assert max(most) <= 4 * (AHEAD + 2 + WAITING + 2)


def test_the_order_of_the_table_does_not_change_rows(corpus, whole, tmp_path):
    root, table = corpus
    run_extraction(table.sample(frac=1, random_state=1), tmp_path / "store", settings(root))
    ids = table["segment_id"].tolist()
    np.testing.assert_array_equal(features(tmp_path / "store", ids), features(whole[0], ids))


def test_an_interrupted_run_goes_on_to_the_same_store(corpus, whole, tmp_path):
    root, table = corpus
    store, options = tmp_path / "store", settings(root, batch_seconds=6.0)
    asked = []

    def stop():
        asked.append(None)
        return len(asked) > 2

    first = run_extraction(table, store, options, stop=stop)
    assert first.interrupted
    assert 0 < first.segments < 24
    assert len(FeatureStore.open(store).ids()) == first.segments
    second = run_extraction(table, store, options)
    assert not second.interrupted
    assert second.new == 24 - first.segments
    ids = table["segment_id"].tolist()
    run_extraction(table, tmp_path / "undisturbed", options)
    np.testing.assert_array_equal(features(store, ids), features(tmp_path / "undisturbed", ids))
    assert relative_difference(features(store, ids), features(whole[0], ids)) < SAME
    assert run_extraction(table, store, options).new == 0


def test_another_terminal_is_told_how_far_a_running_extraction_is(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "EVERY", 0.0)
    root, table = corpus
    store, options = tmp_path / "store", settings(root, batch_seconds=6.0)
    run_extraction(table.head(4), store, options)
    told = []

    def stop():
        said = CliRunner().invoke(commands, ["info", str(store)])
        told.append((store_info(store)["running"], said.stdout.splitlines()[-1]))
        return False

    run_extraction(table, store, options, stop=stop)
    (first, line), (last, _) = told[0], told[-1]
    assert (first["done"], first["total"], first["pid"]) == (4, 24, os.getpid())
    assert line.startswith(
        f"running: 4 of 24 segments committed, by process {os.getpid()} on {first['host']}, since "
    )
    assert re.search(r"\(updated \d s ago\)$", line)
    assert 4 <= last["done"] <= 24
    assert store_info(store)["running"] is None
    assert "running" not in CliRunner().invoke(commands, ["info", str(store)]).output
    assert sorted(os.listdir(store)) == ["lock", "shards", "store.json"]


def test_what_a_grown_table_adds_is_encoded_alone(corpus, tmp_path):
    root, table = corpus
    options = settings(root, batch_seconds=6.0)
    run_extraction(table.iloc[::2], tmp_path / "store", options)
    lengths = []
    summary = run_extraction(table, tmp_path / "store", options, stop=lambda: lengths.append(None))
    assert (summary.segments, summary.new) == (24, 12)
    left = sort_segments(choose_segments(table.iloc[1::2], options))
    assert len(lengths) == len(make_batches(left, 6.0)) + 1


def test_a_segment_whose_times_changed_under_its_id_is_refused(corpus, tmp_path):
    root, table = corpus
    store = tmp_path / "store"
    run_extraction(table, store, settings(root))
    cut = table.assign(end=table["end"] - 6e-5)  # as a file of whole samples has it
    assert run_extraction(cut, store, settings(root)).new == 0
    changed = table.copy()
    changed.loc[1, "start"] += 0.1
    name = changed.loc[1, "segment_id"]
    with pytest.raises(InputError, match=f"1 segment has another length.*{name}.* with 1.9000 s"):
        run_extraction(changed, store, settings(root))


def test_what_was_encoded_before_an_exception_is_kept(corpus, tmp_path, monkeypatch):
    root, table = corpus
    calls = []
    encode = SplitOnOutOfMemory.__call__

    def failing(self, waveforms):
        calls.append(None)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return encode(self, waveforms)

    monkeypatch.setattr(SplitOnOutOfMemory, "__call__", failing)
    with pytest.raises(KeyboardInterrupt):
        run_extraction(table, tmp_path / "store", settings(root, batch_seconds=8.0))
    assert 0 < len(FeatureStore.open(tmp_path / "store").ids()) < 24


@pytest.fixture
def spoilt(corpus, tmp_path):
    """Return a folder and a table in which four segments cannot be used."""
    root, table = corpus
    for file in root.glob("*.flac"):
        shutil.copy(file, tmp_path)
    soundfile.write(tmp_path / "silent.wav", np.zeros(32000), 16000)
    rows = [
        row("absent.flac", 0.0, 1.0, session="A"),
        row("silent.wav", 0.0, 1.0, session="B"),
        row("S01.flac", 15.5, 16.5, session="C"),
        row("S01.flac", 1.0, 1.02, session="D"),
    ]
    return tmp_path, check_table(pd.concat([table, pd.DataFrame(rows)]))


def test_unusable_segments_are_listed_and_the_rest_goes_on(spoilt):
    root, table = spoilt
    store = root / "store"
    summary = run_extraction(table, store, settings(root))
    assert summary.segments == 24
    assert summary.rejected == {"unreadable": 1, "silent": 1, "past-end": 1, "too-short": 1}
    listed = pd.read_csv(f"{store}.rejected.csv").set_index("segment_id")
    assert listed["code"].to_dict() == dict(
        zip(
            table["segment_id"].tail(4),
            ["unreadable", "silent", "past-end", "too-short"],
            strict=True,
        )
    )
    told = listed["message"][table["segment_id"].iloc[-1]]
    assert told == "segment has 320 samples, expected at least 400"
    assert "4 rejected (past-end 1, silent 1, too-short 1, unreadable 1), see" in str(summary)


def test_rejected_segments_are_tried_again_only_when_asked(spoilt):
    root, table = spoilt
    store = root / "store"
    run_extraction(table, store, settings(root))
    soundfile.write(root / "absent.flac", np.random.default_rng(9).uniform(-1, 1, 32000), 16000)
    again = run_extraction(table, store, settings(root))
    assert (again.new, sum(again.rejected.values())) == (0, 4)
    retried = run_extraction(table, store, settings(root, retry_rejected=True))
    assert (retried.new, sum(retried.rejected.values())) == (1, 3)
    assert len(pd.read_csv(f"{store}.rejected.csv")) == 3


def test_the_list_goes_when_nothing_is_rejected_any_more(spoilt):
    root, table = spoilt
    table = table[table["audio"].isin(["S01.flac", "absent.flac"])].iloc[:-2]
    store = root / "store"
    run_extraction(table, store, settings(root))
    listing = root / "store.rejected.csv"
    assert listing.exists()
    soundfile.write(root / "absent.flac", np.random.default_rng(9).uniform(-1, 1, 32000), 16000)
    run_extraction(table, store, settings(root, retry_rejected=True))
    assert not listing.exists()


def test_strict_stops_at_the_first_rejected_segment(spoilt):
    root, table = spoilt
    with pytest.raises(InputError, match="C_001-M.*: past-end: .*or leave out --strict"):
        run_extraction(table, root / "store", settings(root, strict=True))


def test_a_wrong_audio_root_is_told_before_anything_is_rejected(corpus, tmp_path):
    _, table = corpus
    with pytest.raises(InputError, match="2 of 2 recordings are missing.*--audio-root$"):
        run_extraction(table, tmp_path / "store", settings(tmp_path))
    assert not (tmp_path / "store").exists()


def test_a_folder_above_the_recordings_names_theirs(corpus, tmp_path):
    root, table = corpus
    (tmp_path / "all").symlink_to(root)
    with pytest.raises(InputError, match=f"--audio-root {tmp_path / 'all'}$"):
        run_extraction(table, tmp_path / "store", settings(tmp_path))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"layers": "0-2"}, "layers"),
        ({"pooling": "max"}, "pooling"),
        ({"channel": "1"}, "channel"),
        ({"dtype": "bfloat16"}, "compute_dtype"),
        ({"store_dtype": "float16"}, "dtype"),
        ({"max_seconds": 2.0}, "max_seconds"),
        ({"frames": True}, "kind"),
    ],
)
def test_a_store_of_another_configuration_is_refused(corpus, whole, changes, key):
    root, table = corpus
    with pytest.raises(InputError, match=rf"another configuration.*\b{key}: "):
        run_extraction(table, whole[0], settings(root, **changes))


def test_the_store_says_where_its_features_come_from(whole, layer_encoder, corpus, tmp_path):
    root, table = corpus
    config = FeatureStore.open(whole[0]).config
    assert (config["encoder"], config["untrained"], config["channel"]) == ("untrained", True, "0")
    assert config["layer_definition"].endswith("the last is after the final layer norm")
    run_extraction(table.head(1), tmp_path / "store", settings(root, encoder=str(layer_encoder)))
    config = FeatureStore.open(tmp_path / "store").config
    assert (config["revision"], config["untrained"], config["dim"]) == ("local", False, 64)
    assert config["layers"] == [0, 1, 2, 3]
    assert len(config["weights_sha256"]) == 64


def test_shards_add_up_to_the_whole(corpus, whole, tmp_path):
    root, table = corpus
    ids = []
    for i in (1, 2, 3):
        store = tmp_path / str(i)
        assert run_extraction(table, store, settings(root, shard=f"{i}/3")).new == 8
        part = FeatureStore.open(store).ids().tolist()
        assert relative_difference(features(store, part), features(whole[0], part)) < SAME
        ids += part
    assert sorted(ids) == sorted(table["segment_id"])


def test_frames_are_the_states_that_are_pooled(corpus, whole, tmp_path):
    root, table = corpus
    store = tmp_path / "store"
    run_extraction(table, store, settings(root, frames=True, layers="0,5"))
    opened = FeatureStore.open(store)
    assert (opened.kind, opened.dim, opened.config["pooling"]) == ("frames", 64, "none")
    ids = table["segment_id"].tolist()
    for name, vector in zip(ids, features(whole[0], ids), strict=True):
        rows = opened.read_frames(name, 5)
        expected = np.concatenate([rows.mean(axis=0), rows.std(axis=0)])
        assert relative_difference(vector[5], expected) < SAME


def test_the_channel_asked_for_is_the_one_encoded(corpus, whole, tmp_path):
    root, table = corpus
    run_extraction(table, tmp_path / "store", settings(root, channel="1"))
    ids = table["segment_id"].tolist()
    other = features(tmp_path / "store", ids)
    assert relative_difference(other, features(whole[0], ids)) > 1e-3


def test_long_segments_are_encoded_in_windows(corpus, tmp_path):
    root, table = corpus
    summary = run_extraction(table, tmp_path / "store", settings(root, max_seconds=0.5))
    assert summary.new == 24


def test_verify_measures_the_batch(corpus, tmp_path, group_encoder):
    root, table = corpus
    options = settings(root, encoder=str(group_encoder), verify=6)
    summary = run_extraction(table, tmp_path / "store", options)
    assert 0 < summary.difference < SAME
    assert "largest relative difference of float32 in a batch from float32 alone" in str(summary)


def test_verify_tells_what_bfloat16_costs(corpus, tmp_path):
    root, table = corpus
    summary = run_extraction(table, tmp_path / "store", settings(root, verify=4, dtype="bfloat16"))
    assert 1e-4 < summary.difference < 1e-1


def test_verify_tells_what_bfloat16_costs_layer_by_layer(corpus, tmp_path):
    root, table = corpus
    lines = []
    options = settings(root, verify=4, dtype="bfloat16", layers="0,5")
    summary = run_extraction(table, tmp_path / "store", options, log=but_channels(lines))
    found = [
        re.fullmatch(
            r"layer (\d): relative error (\S+) \(median\), (\S+) \(largest\); "
            r"cosine (\S+) \(smallest\)",
            line,
        ).groups()
        for line in lines[:-1]
    ]
    assert "can be named, too few to compare" in lines[-1]
    assert [layer for layer, *_ in found] == ["0", "5"]
    assert max(float(most) for _, _, most, _ in found) == pytest.approx(summary.difference, rel=0.1)
    assert all(float(half) <= float(most) for _, half, most, _ in found)
    assert all(0.99 < float(cosine) <= 1 for *_, cosine in found)
    lines.clear()
    run_extraction(table, tmp_path / "exact", settings(root, verify=4), log=but_channels(lines))
    assert lines == []


def test_verify_names_segments_in_both_formats_where_there_are_enough(corpus, tmp_path):
    root, table = corpus
    rows = table.assign(segment_id=table["segment_id"] + "-2", start=table["start"] + 0.02)
    lines = []
    options = settings(root, verify=48, dtype="bfloat16", layers="5")
    run_extraction(
        check_table(pd.concat([table, rows])), tmp_path / "s", options, log=but_channels(lines)
    )
    found = re.search(
        r"; accuracy (\S+), in float32 (\S+) \(difference \S+, \S+ to \S+\)$", lines[0]
    )
    assert all(0 <= float(share) <= 1 for share in found.groups())
    assert re.match(r"accuracy: (3\d|4\d) of 4\d segments named by ridge within their s", lines[1])


def test_verify_does_not_name_segments_of_the_split_test(corpus, tmp_path):
    root, table = corpus
    table = table.assign(split=np.where(table["session"] == "S01", "test", "train"))
    lines = []
    options = settings(root, verify=24, dtype="bfloat16", layers="5")
    run_extraction(check_table(table), tmp_path / "s", options, log=but_channels(lines))
    named, drawn = re.match(r"accuracy: (\d+) of (\d+) segments can be named", lines[1]).groups()
    assert 0 < int(named) <= 12
    assert drawn == "24"


def test_verify_tells_of_features_that_are_no_numbers_and_goes_on(corpus, tmp_path, monkeypatch):
    from spk.extract.encoder.encoder import Encoder

    root, table = corpus
    rows = table.assign(segment_id=table["segment_id"] + "-2", start=table["start"] + 0.02)
    encode = Encoder.encode

    def overflowing(self, waveforms, **options):
        features, frames = encode(self, waveforms, **options)
        if self.provenance()["compute_dtype"] == "bfloat16":
            features[0, 1, 3] = np.inf
        return features, frames

    monkeypatch.setattr(Encoder, "encode", overflowing)
    lines = []
    options = settings(root, verify=48, dtype="bfloat16", layers="0,2,5", batch_seconds=1000.0)
    summary = run_extraction(
        check_table(pd.concat([table, rows])), tmp_path / "s", options, log=but_channels(lines)
    )
    assert re.fullmatch(
        r"layer 2: 1 of 4\d segments is not finite in bfloat16, expected numbers; "
        "pass --dtype float32",
        lines[1],
    )
    assert all("; accuracy 0." in lines[place] for place in (0, 2))
    assert summary.difference == float("inf")


def test_cosines_are_of_the_angle():
    found = cosines(np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), np.eye(3, 2))
    np.testing.assert_allclose(found, [1.0, 0.5**0.5, 0.0])


def test_verify_finds_an_encoder_that_mixes_its_batch(corpus, tmp_path, monkeypatch):
    from spk.extract.encoder.encoder import Encoder

    root, table = corpus
    encode = Encoder.encode

    def leaking(self, waveforms, **options):
        features, frames = encode(self, waveforms, **options)
        return features + 1e-3 * len(waveforms), frames

    monkeypatch.setattr(Encoder, "encode", leaking)
    with pytest.raises(InputError, match="features differ by .* expected at most 1e-05"):
        run_extraction(table, tmp_path / "store", settings(root, verify=6))


def test_a_batch_too_large_for_memory_is_halved_and_told_once(corpus, whole, tmp_path, monkeypatch):
    import torch

    from spk.extract.encoder.encoder import Encoder

    root, table = corpus
    submit = Encoder.encode_async

    def small(self, waveforms, *settings):
        if len(waveforms) > 3:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return submit(self, waveforms, *settings)

    monkeypatch.setattr(Encoder, "encode_async", small)
    lines = []
    summary = run_extraction(table, tmp_path / "store", settings(root), log=but_channels(lines))
    assert summary.new == 24
    assert len(lines) == 1
    assert "too large for the device's memory" in lines[0]
    ids = table["segment_id"].tolist()
    assert relative_difference(features(tmp_path / "store", ids), features(whole[0], ids)) < SAME


def test_a_bug_in_encoding_names_the_segments(corpus, tmp_path, monkeypatch):
    from spk.extract.encoder.encoder import Encoder

    root, table = corpus

    def broken(self, waveforms, *settings):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Encoder, "encode_async", broken)
    with pytest.raises(RuntimeError, match="S01_002-M_.* and 1 more in its batch: encoding fail"):
        run_extraction(table, tmp_path / "store", settings(root, batch_seconds=7.0))


def test_a_bug_in_writing_names_the_segment_and_ends_the_run(corpus, tmp_path, monkeypatch):
    root, table = corpus
    add = StoreWriter.add
    added = []

    def broken(self, name, features, **rest):
        added.append(name)
        if len(added) == 3:
            raise RuntimeError("the library's own")
        add(self, name, features, **rest)

    monkeypatch.setattr(StoreWriter, "add", broken)
    with pytest.raises(RuntimeError) as found:
        run_extraction(table, tmp_path / "store", settings(root, batch_seconds=4.0))
    assert str(found.value) == f"{added[2]}: writing failed"
    assert set(FeatureStore.open(tmp_path / "store").ids()) == set(added[:2])


def test_the_profile_tells_where_the_time_went(corpus, tmp_path):
    root, table = corpus
    file = tmp_path / "profile.txt"
    run_extraction(table, tmp_path / "store", settings(root, profile=str(file), workers=2))
    page = file.read_text()
    assert page.startswith("segments: 24\naudio: 26.3 s in ")
    for stage in ("decode", "transfer", "CNN", "layers", "pooling", "writing"):
        assert f" {stage} " in page
    assert "busiest row: MainThread" in page
    events = json.loads((tmp_path / "profile.txt.trace.json").read_text())["traceEvents"]
    assert sum(event["name"] == "decode" for event in events) == 24


@pytest.mark.slow
def test_a_killed_run_is_completed_by_the_same_command(corpus, tmp_path):
    root, table = corpus
    write_table(table, tmp_path / "table.csv")
    store = tmp_path / "store"
    code = f"""
import os, signal
from spk.extract.options import ExtractOptions
from spk.extract.run import run_extraction
from spk.extract.store.writer import StoreWriter
from spk.manifests.table import read_table

commit = StoreWriter.commit

def killed(self):
    commit(self)
    os.kill(os.getpid(), signal.SIGKILL)

StoreWriter.commit = killed
due = StoreWriter._commit_if_due
def early(self):
    self._commit_rows = 6
    due(self)
StoreWriter._commit_if_due = early
options = ExtractOptions(encoder="demo", audio_root={str(root)!r}, workers=2, store_dtype="float32",
                  batch_seconds=6.0)
run_extraction(read_table({str(tmp_path / "table.csv")!r}), {str(store)!r}, options)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    kept = set(FeatureStore.open(store).ids())
    assert 6 <= len(kept) < 24
    options = settings(root, batch_seconds=6.0)
    batches = make_batches(sort_segments(choose_segments(table, options)), 6.0)
    assert {len(kept & {s.segment_id for s in batch}) / len(batch) for batch in batches} == {0, 1}
    assert run_extraction(table, store, options).new == 24 - len(kept)
    run_extraction(table, tmp_path / "undisturbed", options)
    ids = table["segment_id"].tolist()
    np.testing.assert_array_equal(features(store, ids), features(tmp_path / "undisturbed", ids))


def test_one_waveform_too_large_for_memory_is_told():
    def never(waveforms):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(InputError, match="a waveform of 7 samples alone.*smaller --max-seconds"):
        SplitOnOutOfMemory(never, lambda line: None)([np.zeros(7), np.zeros(5)])


def test_another_runtime_error_is_not_taken_for_memory():
    def broken(waveforms):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        SplitOnOutOfMemory(broken, lambda line: None)([np.zeros(7), np.zeros(5)])


def test_of_several_channels_it_is_told_which_is_read(corpus, tmp_path):
    root, table = corpus
    mixed, first, own = [], [], []
    options = settings(root, encoder="mfcc")
    run_extraction(table, tmp_path / "first", options, log=first.append)
    run_extraction(table.assign(channel="1"), tmp_path / "own", options, log=own.append)
    options = settings(root, encoder="mfcc", channel="mean")
    run_extraction(table, tmp_path / "mixed", options, log=mixed.append)
    assert [line.startswith(TWO_CHANNELS) for line in first] == [True]
    assert (own, mixed) == ([], [])


def test_a_plan_counts_and_estimates_without_audio_or_weights(corpus, whole, layer_encoder):
    _, table = corpus
    found = plan(table, ExtractOptions(encoder=str(layer_encoder), audio_root="nowhere"))
    assert (found.segments, found.size) == (24, 24 * 4 * 64 * 2)
    assert found.seconds == pytest.approx(2 * sum(DURATIONS))
    first, absent = str(found).split("\n")
    assert first == "24 segments, 0.01 h, cache about 0.0 MB (4 layers x 64, float16)"
    assert re.match("nowhere: (.+) of \\1 recordings are missing, first '.*--audio-root$", absent)


def test_a_plan_advises_to_cut_where_recordings_have_channels(corpus, layer_encoder):
    root, table = corpus
    told = str(plan(table, ExtractOptions(encoder=str(layer_encoder), audio_root=str(root))))
    assert "recordings have up to 2 channels, and all are decoded to read one" in told
    assert told.endswith("cut first: spk-manifests cut")


def test_a_plan_for_an_encoder_that_is_not_at_hand_says_so(corpus, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = plan(corpus[1], ExtractOptions())
    assert found.size is None
    assert "cache unknown (jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn: enc" in str(found)


@pytest.mark.parametrize(
    ("text", "layers"),
    [("all", [0, 1, 2, 3, 4]), ("0-2", [0, 1, 2]), ("4,1", [1, 4]), ("0, 2-3", [0, 2, 3])],
)
def test_layers_are_read_as_written(text, layers):
    assert parse_layers(text, 4) == layers


@pytest.mark.parametrize("text", ["", "5", "0-5", "-1", "a", "1,1", "3-2", "1-", "0-999999999999"])
def test_layers_that_are_not_there_are_refused(text):
    with pytest.raises(InputError, match="--layers: value is"):
        parse_layers(text, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_seconds": 0.0}, "--batch-seconds: value is 0.0, expected a number above 0,"),
        ({"max_seconds": 0.01}, "--max-seconds: value is 0.01, expected a number above 0.1"),
        ({"max_seconds": float("nan")}, "--max-seconds: value is nan, expected a number above 0.1"),
        ({"max_seconds": float("inf")}, "--max-seconds: value is inf, expected a number above 0.1"),
        ({"frames": True, "pooling": "max"}, "--pooling: value is 'max' beside --frames"),
        ({"workers": -1}, "--workers: value is -1, expected a whole number from 0, or none"),
        ({"verify": -1}, "--verify: value is -1, expected a whole number from 0;"),
        ({"store_dtype": "int8"}, "--store-dtype: value is 'int8'"),
        ({"channel": "left"}, "--channel: value is 'left'"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        ExtractOptions(**changes)


def test_real_meetings_give_features(real_data, tmp_path):
    root = real_data / "meetings"
    rows = []
    for file in sorted((root / "TextGrid").glob("*.rttm"))[:2]:
        lines = [line.split() for line in file.read_text().splitlines() if line.strip()][:6]
        for _, session, _, start, duration, _, _, speaker, *_ in lines:
            times = float(start), float(start) + float(duration)
            rows.append(row(f"wav/{session}.flac", *times, speaker, session))
    table = check_table(pd.DataFrame(rows))
    summary = run_extraction(table, tmp_path / "store", settings(root, verify=5))
    assert (summary.segments, summary.rejected) == (12, {})
    assert summary.difference < SAME
