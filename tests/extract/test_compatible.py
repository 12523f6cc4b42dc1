"""Which stores hold the same features: weights, settings and numbers tell, names do not."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner

from spk.common.errors import InputError
from spk.extract.cli import main
from spk.extract.store.cli import store
from spk.extract.store.layout import differing_keys, fingerprint
from spk.extract.store.maintenance import merge_stores, store_info, verify_store
from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter

HASHED = {"weights_sha256": "aa" * 32, "encoder_config_sha256": "bb" * 32}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def table(tmp_path):
    """Return a table of four segments of a recording at 16 kHz, and the folder it lies in."""
    rng = np.random.default_rng(3)
    soundfile.write(tmp_path / "s.wav", 0.1 * rng.standard_normal(64000), 16000)
    rows = [
        {"segment_id": f"s_{i}", "audio": "s.wav", "start": i * 0.9, "end": i * 0.9 + 0.8}
        for i in range(4)
    ]
    pd.DataFrame(rows).assign(speaker="s_a", session="s").to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def call(command, *arguments):
    return CliRunner().invoke(command, list(map(str, arguments)))


def extract(table, out, *options):
    return call(main, table, out, "--audio-root", table.parent, *options)


def copy_encoder(source, folder, names=("config.json", "model.safetensors")):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes((source / name).read_bytes())
    return folder


def test_names_are_passed_over_where_hashes_identify_the_encoder():
    old = {"encoder": "a", "revision": "local", "rate": 16000, **HASHED}
    same = {**old, "encoder": "org/a", "revision": COMMIT, "assumed": ["rate"], "resample": True}
    assert differing_keys(old, same) == []
    assert differing_keys(old, {**same, "weights_sha256": "cc" * 32}) == ["weights_sha256"]
    assert differing_keys(old, {**same, "rate": 8000}) == ["rate"]
    bare = {key: value for key, value in same.items() if key not in HASHED}
    assert differing_keys(old, bare) == [
        *("encoder", "encoder_config_sha256", "revision", "weights_sha256")
    ]
    assert differing_keys({"dtype": "float16"}, {"dtype": "float32"}, free=["dtype"]) == []


def test_a_store_grows_under_another_name_and_keeps_its_own(
    tmp_path, make_store, store_config, row
):
    old = {**HASHED, "resample": False}
    make_store(tmp_path / "store", ["a", "b"], **old)
    before = (tmp_path / "store" / "store.json").read_bytes()
    config = {**store_config, **HASHED, "encoder": "org/tiny", "revision": COMMIT}
    del config["resample"]
    with StoreWriter(tmp_path / "store", {**config, "assumed": ["rate"]}) as writer:
        assert writer.done == {"a", "b"}
        writer.add("c", np.ones((3, 4)), **row)
    assert (tmp_path / "store" / "store.json").read_bytes() == before
    opened = FeatureStore.open(tmp_path / "store")
    assert sorted(opened.ids()) == ["a", "b", "c"]
    assert {shard.attributes["fingerprint"] for shard in opened.shards} == {
        fingerprint({**store_config, **old})
    }
    assert verify_store(tmp_path / "store") == []


def test_stores_of_one_encoder_under_two_names_are_merged(tmp_path, make_store):
    make_store(tmp_path / "one", ["a"], **HASHED)
    make_store(tmp_path / "two", ["b"], encoder="other", resample=True, **HASHED)
    assert merge_stores([tmp_path / "one", tmp_path / "two"], tmp_path / "both") == 2
    assert merge_stores([tmp_path / "two"], tmp_path / "both") == 2
    make_store(tmp_path / "three", ["c"], pooling="max", **HASHED)
    with pytest.raises(InputError, match="pooling: 'max', asked 'mean'.*; leave it out"):
        merge_stores([tmp_path / "one", tmp_path / "three"], tmp_path / "all")


def test_a_shard_of_a_store_of_the_same_features_may_be_put_there(tmp_path, make_store):
    make_store(tmp_path / "one", ["a"], **HASHED)
    make_store(tmp_path / "two", ["b"], encoder="other", **HASHED)
    (shard,) = (tmp_path / "two" / "shards").iterdir()
    shard.rename(tmp_path / "one" / "shards" / shard.name.replace("000000", "000001", 1))
    assert sorted(FeatureStore.open(tmp_path / "one").ids()) == ["a", "b"]


def test_folder_renamed_hub_id_and_option_give_the_same_encoder(
    tmp_path, table, group_encoder, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--some--base"
    copy_encoder(group_encoder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    files = ("config.json", "model.safetensors", "preprocessor_config.json")
    says_no = copy_encoder(group_encoder, tmp_path / "renamed", files)
    out = tmp_path / "store"
    assert extract(table, out, "--encoder", says_no).exit_code == 0
    done = extract(table, out, "--encoder", "some/base", "--normalize", "no")
    assert (done.exit_code, "0 of them new" in done.output) == (0, True)
    done = extract(table, out, "--encoder", "some/base")  # assumed, and rightly
    assert (done.exit_code, "0 of them new" in done.output) == (0, True)
    refused = extract(table, out, "--encoder", "some/base", "--normalize", "yes")
    assert refused.exit_code == 1
    assert "give --normalize the store's value, or name another store" in refused.output


def test_what_is_assumed_is_told_and_recorded_and_shown(tmp_path, table, group_encoder):
    bare = copy_encoder(group_encoder, tmp_path / "bare")
    done = extract(table, tmp_path / "a", "--encoder", bare)
    assert done.exit_code == 0
    assert "are assumed, which may be wrong" in done.stderr
    assert "assumed: ['normalization', 'rate']" in call(store, "info", tmp_path / "a").output
    extract(table, tmp_path / "b", "--encoder", bare, "--normalize", "yes")
    says = copy_encoder(group_encoder, tmp_path / "says")
    (says / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    extract(table, tmp_path / "c", "--encoder", says)
    assert "assumed" not in store_info(tmp_path / "c")["configuration"]
    b, c = (FeatureStore.open(tmp_path / name) for name in "bc")
    assert differing_keys(b.config, c.config) == []
    for layer in b.layers:
        np.testing.assert_array_equal(b.read(c.ids(), layer), c.read(c.ids(), layer))


def test_an_option_of_another_form_is_refused(table, tmp_path):
    refused = extract(table, tmp_path / "a", "--encoder", "demo", "--normalize", "maybe")
    assert refused.exit_code == 2
    assert not (tmp_path / "a").exists()


def test_another_rate_is_allowed_into_a_store_that_was_made_without(tmp_path, table):
    """Follow the repair to its end: extract, verify, merge, with an older store too."""
    folder = table.parent
    rng = np.random.default_rng(4)
    soundfile.write(folder / "phone.wav", 0.1 * rng.standard_normal(88200), 44100)
    phone = folder / "phone.csv"
    row = {"segment_id": "p_1", "audio": "phone.wav", "start": 0.0, "end": 1.5}
    pd.DataFrame([row]).assign(speaker="p_a", session="p").to_csv(phone, index=False)
    out = tmp_path / "store"
    assert extract(table, out, "--encoder", "demo").exit_code == 0
    described = json.loads((out / "store.json").read_text())
    assert "resample" not in described["configuration"]
    refused = extract(phone, out, "--encoder", "demo")
    assert (refused.exit_code, "pass --resample" in refused.output) == (1, True)
    assert extract(phone, out, "--encoder", "demo", "--resample").exit_code == 0
    assert extract(table, out, "--encoder", "demo").exit_code == 0
    both = pd.concat([pd.read_csv(table), pd.read_csv(phone)])
    both.to_csv(folder / "both.csv", index=False)
    assert (
        call(store, "verify", out, "--table", folder / "both.csv", "--audio", folder).exit_code == 0
    )
    extract(phone, tmp_path / "other", "--encoder", "demo", "--resample")
    assert call(store, "merge", out, tmp_path / "other", tmp_path / "all").exit_code == 0


def test_an_older_store_that_forbade_it_goes_on(tmp_path, table):
    from spk.extract import run

    def older(encoder, layers, options):
        return {**made(encoder, layers, options), "resample": options.resample}

    made, out = run.configuration, tmp_path / "old"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "configuration", older)
        extract(table, out, "--encoder", "demo")
    assert FeatureStore.open(out).config["resample"] is False
    assert extract(table, out, "--encoder", "demo", "--resample").exit_code == 0
    assert call(store, "verify", out, "--table", table, "--audio", table.parent).exit_code == 0


@pytest.mark.parametrize(
    ("options", "repair"),
    [
        (("--pooling", "mean"), "give --pooling the store's value, or name another store"),
        (("--layers", "1,2"), "give --layers the store's value"),
        (("--store-dtype", "float32", "--channel", "mean"), "give --channel, --store-dtype the"),
        (("--max-seconds", "1"), "give --max-seconds the store's value"),
    ],
)
def test_a_store_of_other_options_names_them(tmp_path, table, options, repair):
    extract(table, tmp_path / "store", "--encoder", "demo")
    refused = extract(table, tmp_path / "store", "--encoder", "demo", *options)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert repair in refused.stderr


def test_a_file_that_is_no_store_is_never_to_be_deleted(tmp_path, table, make_store):
    before = table.read_bytes()
    for command in (("info", table), ("verify", table), ("merge", table, tmp_path / "m")):
        refused = call(store, *command)
        assert refused.exit_code == 1
        assert "it is not an HDF5 file, expected a store" in refused.stderr
        assert "delete" not in refused.stderr
    recording = table.parent / "s.wav"
    refused = extract(table, recording, "--encoder", "demo")
    assert (refused.exit_code, "name another folder" in refused.stderr) == (1, True)
    assert table.read_bytes() == before


def test_a_packed_store_grows_as_a_folder_merged_of_it(tmp_path, table):
    extract(table, tmp_path / "store", "--encoder", "demo")
    call(store, "pack", tmp_path / "store", tmp_path / "p.h5")
    refused = extract(table, tmp_path / "p.h5", "--encoder", "demo")
    assert "it is a file" in refused.stderr
    with pytest.raises(InputError, match="run `spk-store merge .*p.h5 FOLDER` and name that"):
        StoreWriter(tmp_path / "p.h5", FeatureStore.open(tmp_path / "p.h5").config)
    assert call(store, "merge", tmp_path / "p.h5", tmp_path / "new").exit_code == 0
    done = extract(table, tmp_path / "new", "--encoder", "demo")
    assert (done.exit_code, "0 of them new" in done.output) == (0, True)


@pytest.mark.parametrize(
    ("dtype", "repair"),
    [
        ("bfloat16", "pass --dtype float32 and name another store, or take the segment out"),
        ("float32", "expected numbers; take the segment out of the table"),
    ],
)
def test_values_that_are_not_finite_name_a_way_that_the_store_allows(
    tmp_path, store_config, row, dtype, repair
):
    writer = StoreWriter(tmp_path / "s", {**store_config, "compute_dtype": dtype})
    with writer, pytest.raises(InputError, match=repair):
        writer.add("a", np.full((3, 4), np.inf), **row)
