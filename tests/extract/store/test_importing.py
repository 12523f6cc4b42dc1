"""Vectors that other encoders made become a store: checked, and never taken for another's."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from spk.common.errors import InputError
from spk.extract.store.cli import store as command
from spk.extract.store.export import export
from spk.extract.store.importing import import_vectors, run_import
from spk.extract.store.maintenance import verify_store
from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter
from spk.manifests.table import check_table, write_table

IDS = [f"s{number}" for number in range(6)]
X = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)  # rows, layers, dim


@pytest.fixture
def table():
    rows = {"segment_id": IDS, "audio": "a.wav", "speaker": ["A", "B"] * 3, "session": "S"}
    times = {"start": np.arange(6.0), "end": np.arange(6.0) + 1.5, "split": "train"}
    return check_table(pd.DataFrame({**rows, **times}))


@pytest.fixture
def file(tmp_path):
    """Return a function that writes arrays as an .npz and returns its path."""

    def save(name="x.npz", ids=tuple(IDS), vectors=X[:, 0], **arrays):
        arrays = {"vectors": vectors, **arrays}
        np.savez(tmp_path / name, **({} if ids is None else {"segment_id": list(ids)}), **arrays)
        return tmp_path / name

    return save


def frame_of(values):
    return pd.DataFrame(values).assign(segment_id=IDS)


def write_form(path, form):
    """Write the first layer of `X` in one of the forms that are read."""
    order = [3, 1, 0, 2, 5, 4]
    if form == "array":
        np.savez(path, ids=np.array(IDS)[order], embeddings=X[order, 0])
    elif form == "by segment":
        np.savez(path, **{IDS[k]: X[k, 0] for k in order})
    elif form == "numbers.parquet":
        frame_of(X[:, 0]).rename(columns=str).to_parquet(path)
    elif form == "list.parquet":
        frame = pd.DataFrame({"segment_id": IDS, "speaker": "A", "vector": list(X[:, 0])})
        frame.to_parquet(path)
    else:
        frame_of(X[:, 0]).iloc[order].to_csv(path, index=False, sep=";")


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        ("array", ".npz"),
        ("by segment", ".npz"),
        ("numbers.parquet", ".parquet"),
        ("list.parquet", ".parquet"),
        ("text", ".csv"),
    ],
)
def test_each_form_gives_the_same_store_of_one_layer(tmp_path, table, form, suffix):
    write_form(tmp_path / f"x{suffix}", form)
    store = import_vectors(tmp_path / f"x{suffix}", table, tmp_path / "store", name="d-vector")
    assert (store.layers, store.dim, store.config["encoder"]) == ([0], 4, "d-vector")
    np.testing.assert_array_equal(store.read(IDS, 0), X[:, 0])
    np.testing.assert_array_equal(store.rows()["duration"], [1.5] * 6)
    np.savez(tmp_path / "plain.npz", segment_id=IDS, vectors=X[:, 0])
    plain = import_vectors(tmp_path / "plain.npz", table, tmp_path / "plain", name="d-vector")
    assert plain.fingerprint == store.fingerprint


def test_rows_of_several_layers_become_layers(table, tmp_path, file):
    store = import_vectors(file(vectors=X), table, tmp_path / "store", name="x")
    assert store.layers == [0, 1, 2]
    np.testing.assert_array_equal(store.read(IDS), X)
    named = file("n.npz", vectors=np.empty(0), layer_3=X[:, 0], layer_7=X[:, 1])
    assert import_vectors(named, table, tmp_path / "named", name="x").layers == [3, 7]


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "index"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_row_numbers_that_pandas_wrote_are_no_vectors(tmp_path, table, suffix, name):
    frame = frame_of(X[:, 0]).rename(columns=str)
    if name:
        frame.insert(0, name, range(len(frame)))
    path = tmp_path / f"x{suffix}"
    frame.to_csv(path, index=not name) if suffix == ".csv" else frame.to_parquet(path)
    store = import_vectors(path, table, tmp_path / "store", name="d-vector")
    np.testing.assert_array_equal(store.read(IDS, 0), X[:, 0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16"])
def test_halves_and_singles_keep_their_bits_and_others_become_singles(table, tmp_path, file, dtype):
    values = (1000 * X[:, 0]).astype(dtype)
    summary = run_import(file(vectors=values), table, tmp_path / "store", name="x")
    store = FeatureStore.open(tmp_path / "store")
    assert store.config["dtype"] == ("float16" if dtype == "float16" else "float32")
    assert np.array_equal(store.read(IDS, 0), values.astype(np.float32))
    assert (f"{dtype} in the file" in str(summary)) == (dtype in ("float64", "int16"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": IDS[:4], "vectors": X[:4, 0]}, r"2 of 6 segments have no vector, first 's4'"),
        ({"ids": [*IDS[:5], "no"]}, r"1 of 6 segments has no vector, first 's5'"),
        (
            {"ids": [*IDS, "no"], "vectors": X[[0] * 7, 0]},
            r"1 of 7 vectors .* no segment.*'no'",
        ),
        ({"ids": [*IDS[:5], "s0"]}, r"1 segment_ids are given twice, first 's0'"),
        ({"ids": list("abcdef")}, r"none of the table's 6 segments has a vector.*'a'.*'s0'"),
        ({"vectors": X[:5, 0]}, r"shape \(5, 4\), expected a row for each of 6 segments"),
        ({"vectors": np.where(X[:, 0] == X[2, 0, 1], np.nan, X[:, 0])}, r"1 of 6 .* finite.*'s2'"),
        ({"vectors": X[:, 0].astype("f8") * 1e300}, r"6 of 6 vectors are not finite as float32"),
        ({"vectors": np.array(["a"] * 6)}, r"0 arrays may be the vectors"),
        ({"other": X}, r"2 arrays may be the vectors \(vectors, other\)"),
        ({"ids": None, "other": X[0]}, r"holds no 'segment_id', and arrays of 2 shapes"),
        ({"ids": [], "vectors": X[:0, 0]}, r"holds 0 vectors, expected at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_made(table, tmp_path, file, changes, message):
    with pytest.raises(InputError, match=message):
        import_vectors(file(**changes), table, tmp_path / "store", name="x")
    assert not (tmp_path / "store").exists()


def test_partial_takes_what_both_have_and_lists_the_rest(table, tmp_path, file):
    path = file(ids=[*IDS[:4], "no"], vectors=X[:5, 0])
    write_table(table, tmp_path / "table.csv")
    words = ["import", path, tmp_path / "table.csv", tmp_path / "store", "--name", "x", "--partial"]
    done = CliRunner().invoke(command, list(map(str, words)))
    assert done.exit_code == 3
    assert "4 segments of x, 4 new" in done.output
    assert "2 have no vector" in done.output
    assert "1 vector is of no segment" in done.output
    store = FeatureStore.open(tmp_path / "store")
    assert store.ids().tolist() == IDS[:4]
    assert [row["code"] for row in store.rejected()] == ["no-vector"] * 2
    assert len(pd.read_csv(tmp_path / "store.rejected.csv")) == 2


def test_two_files_never_pass_for_one_another_even_under_one_name(table, tmp_path, file):
    store = tmp_path / "store"
    first = import_vectors(file(), table, store, name="x")
    again = run_import(file(), table, store, name="x")  # the same file goes on
    assert (again.segments, again.new) == (6, 0)
    other = file("other.npz", vectors=np.where(X[:, 0] == X[5, 0, 3], 0, X[:, 0]))
    with pytest.raises(InputError, match=r"another configuration \(vectors_sha256"):
        import_vectors(other, table, store, name="x")
    second = import_vectors(other, table, tmp_path / "second", name="x")
    assert first.config["vectors_sha256"] != second.config["vectors_sha256"]
    with pytest.raises(InputError, match=r"another configuration \(encoder: 'x', asked 'y'"):
        import_vectors(file(), table, store, name="y")


def test_the_weights_file_identifies_the_encoder_of_several_files(table, tmp_path, file):
    (tmp_path / "weights.pt").write_bytes(b"weights")
    options = {"name": "x", "weights": tmp_path / "weights.pt"}
    half, rest = file("a.npz", IDS[:3], X[:3, 0]), file("b.npz", IDS[3:], X[3:, 0])
    import_vectors(half, table[:3], tmp_path / "store", **options)
    store = import_vectors(rest, table[3:].reset_index(drop=True), tmp_path / "store", **options)
    np.testing.assert_array_equal(store.read(IDS, 0), X[:, 0])
    with pytest.raises(InputError, match=r"features of 's0' differ from those in the file"):
        import_vectors(file("c.npz", vectors=-X[:, 0]), table, tmp_path / "store", **options)


def test_a_name_is_needed(table, tmp_path, file):
    with pytest.raises(InputError, match=r"does not say which encoder made it.*pass --name NAME"):
        import_vectors(file(), table, tmp_path / "store")


@pytest.fixture
def exported(tmp_path, table, store_config, row):
    """Return a function that makes a store, exports it, and returns both paths."""

    def make(suffix, kind="pooled", dtype="float16"):
        config = {**store_config, "kind": kind, "dtype": dtype}
        with StoreWriter(tmp_path / "made", config, commit_rows=4) as writer:
            for number, name in enumerate(IDS):
                values = X[number] if kind == "pooled" else X[[number] * (number + 1)]
                writer.add(name, values, **row, audio_digest=number + (1 << 63))
        export(tmp_path / "made", tmp_path / f"made{suffix}", table=table)
        return tmp_path / "made", tmp_path / f"made{suffix}"

    return make


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("suffix", "kind"), [(".npz", "pooled"), (".parquet", "pooled"), (".npz", "frames")]
)
def test_what_export_wrote_is_read_back_to_the_bit(exported, table, tmp_path, suffix, kind, dtype):
    made, file = exported(suffix, kind, dtype)
    back = import_vectors(file, table, tmp_path / "back")
    before = FeatureStore.open(made)
    assert (back.config, back.fingerprint) == (before.config, before.fingerprint)
    for name, values in before.rows().items():
        np.testing.assert_array_equal(back.rows()[name], values)
    sums = [np.concatenate([shard.crc32 for shard in s.shards]) for s in (back, before)]
    np.testing.assert_array_equal(*sums)
    assert verify_store(tmp_path / "back") == []


def test_an_export_that_was_changed_is_another_encoders(exported, table, tmp_path):
    _, path = exported(".npz")
    with np.load(path) as file:
        arrays = dict(file)
    arrays["layer_2"][3, 1] *= 2
    np.savez(tmp_path / "changed.npz", **arrays)
    with pytest.raises(InputError, match=r"is not what spk-store export wrote of 'tiny' any more"):
        import_vectors(tmp_path / "changed.npz", table, tmp_path / "store")
    store = import_vectors(tmp_path / "changed.npz", table, tmp_path / "store", name="twice")
    assert store.config["encoder"] == "twice"
    with pytest.raises(InputError, match=r"holds features of 'tiny'.*leave out --name"):
        import_vectors(path, table, tmp_path / "other", name="twice")


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("what", ["configuration", "audio_digest", "segment_id"])
def test_an_export_vouches_for_all_that_a_store_takes_from_it(
    exported, table, tmp_path, suffix, what
):
    _, path = exported(suffix)
    changed = tmp_path / f"changed{suffix}"
    if suffix == ".npz":
        with np.load(path) as file:
            arrays = dict(file)
        values = np.array(str(arrays[what]).replace("}", ', "x": 1}'))
        arrays[what] = values if what == "configuration" else arrays[what][::-1]
        np.savez(changed, **arrays)
    else:
        rows = parquet.read_table(path)
        facts = dict(rows.schema.metadata)
        if what == "configuration":
            facts[b"configuration"] = facts[b"configuration"].replace(b"}", b', "x": 1}')
        else:
            place = rows.schema.get_field_index(what)
            values = rows.column(what).take(list(range(len(rows)))[::-1])
            rows = rows.set_column(place, rows.schema.field(place), values)
        parquet.write_table(rows.replace_schema_metadata(facts), changed)
    with pytest.raises(InputError, match="is not what spk-store export wrote"):
        import_vectors(changed, table, tmp_path / "store")


def test_an_export_of_segments_with_other_times_is_refused(exported, table, tmp_path):
    _, path = exported(".npz")
    later = table.assign(end=table["end"] + 1)
    with pytest.raises(InputError, match=r"6 segments have another length in the table"):
        import_vectors(path, later, tmp_path / "store")


KINDS = [
    ("x.h5", b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    ("x.npy", b"\x93NUMPY", r"is a single array \(.npy\), which has no ids"),
    ("x.pkl", b"\x80\x04", "is a pickle, which may run code and is not opened"),
    ("x.npz", b"PAR1", "is a Parquet file.*rename it to .parquet"),
    ("x.parquet", b"segment_id,0\n", "is no .parquet by its first bytes"),
    ("x.npz", b"segment_id,0\n", "is no .npz by its first bytes"),
    ("x.csv", b"RIFF....WAVE", "is a recording"),
    ("x.txt", b"a b c", r"suffix is '.txt', expected .npz or .parquet or .csv"),
    ("x.csv", b"name,0\ns0,1\n", "column 'segment_id' is missing, found"),
    ("x.csv", b"segment_id,0\ns0,loud\n", "column '0' holds what is no number"),
]


@pytest.mark.parametrize(("name", "content", "message"), KINDS)
def test_a_file_of_another_format_is_named_as_what_it_is(tmp_path, table, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_vectors(tmp_path / name, table, tmp_path / "store", name="x")


def test_objects_stores_and_archives_are_named_too(tmp_path, table, file, exported):
    with pytest.raises(InputError, match="0 arrays may be the vectors"):
        import_vectors(file(vectors=np.array([{}] * 6)), table, tmp_path / "store", name="x")
    made, path = exported(".npz")
    with pytest.raises(InputError, match="is a store, expected vectors.*takes STORE"):
        import_vectors(made, table, tmp_path / "store", name="x")
    path.rename(tmp_path / "made.csv")
    with pytest.raises(InputError, match=r"is an \.npz by its content; rename it"):
        import_vectors(tmp_path / "made.csv", table, tmp_path / "store", name="x")


def test_audio_cannot_be_verified_of_imported_vectors(tmp_path, table, file):
    import_vectors(file(), table, tmp_path / "store", name="x")
    with pytest.raises(InputError, match=r"holds imported vectors of 'x'"):
        verify_store(tmp_path / "store", table=table, audio=tmp_path)


def test_overwrite_replaces_the_store_of_another_file(tmp_path, table, file):
    store = tmp_path / "store"
    import_vectors(file(), table, store, name="x")
    other = file("other.npz", vectors=X[:, 1])
    replaced = import_vectors(other, table, store, name="y", overwrite=True)
    assert (replaced.config["encoder"], replaced.path) == ("y", store)
    np.testing.assert_array_equal(replaced.read(IDS, 0), X[:, 1])
    (store / "mine").write_text("a file of the user's")
    with pytest.raises(InputError, match="holds 'mine', which is not part of a store"):
        import_vectors(other, table, store, name="z", overwrite=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"segment_id": np.array(IDS)[:, None]},
            r"'segment_id' has shape \(6, 1\), expected a list",
        ),
        ({"offset": np.array([0, 2, 1, 3, 4, 5, 6])}, r"cannot be read \(offset of 6 segments is"),
        ({"configuration": "[1]"}, r"cannot be read"),
    ],
)
def test_a_damaged_file_of_vectors_is_told_in_one_line(tmp_path, table, changes, message):
    arrays = {"segment_id": IDS, "layer_0": X[:, 0], "configuration": "{}"}
    np.savez(tmp_path / "x.npz", **{**arrays, "offset": np.arange(7), **changes})
    with pytest.raises(InputError, match=message):
        import_vectors(tmp_path / "x.npz", table, tmp_path / "store", name="x")
