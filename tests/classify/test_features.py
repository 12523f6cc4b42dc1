import json

import numpy as np
import pytest

from spk.classify.features import (
    LayerSet,
    layer_sets,
    open_store,
    read_features,
    rows_with_features,
)
from spk.common.errors import InputError
from spk.manifests.split_record import split_method
from spk.manifests.splits.tasks import make_tasks


def test_features_come_in_table_order(store, table, features):
    X = read_features(store, table["segment_id"], LayerSet((1,)), "both")
    np.testing.assert_array_equal(X, features[:, 1])


def test_concat_puts_layers_side_by_side(store, table, features):
    X = read_features(store, table["segment_id"], LayerSet((2, 0), "concat"), "both")
    np.testing.assert_array_equal(X, np.concatenate([features[:, 2], features[:, 0]], axis=1))


def test_average_is_the_mean_of_the_layers(store, table, features):
    X = read_features(store, table["segment_id"], LayerSet((0, 1, 2), "average"), "both")
    np.testing.assert_allclose(X, features.mean(axis=1), rtol=0, atol=1e-5)  # float32 sums
    assert X.dtype == np.float32


@pytest.mark.parametrize(("part", "columns"), [("mean", slice(0, 12)), ("std", slice(12, 24))])
def test_pooling_part_takes_its_half(store, table, features, part, columns):
    X = read_features(store, table["segment_id"], LayerSet((1,)), part)
    np.testing.assert_array_equal(X, features[:, 1, columns])


def test_a_part_the_store_does_not_have_is_refused(tmp_path, table, features, write_store):
    path = write_store(tmp_path / "s", table["segment_id"], features, pooling="mean")
    store = open_store(path)
    assert read_features(store, table["segment_id"][:1], LayerSet((0,)), "mean").shape == (1, 24)
    with pytest.raises(InputError, match="'std' is asked for, the store's pooling is 'mean'"):
        read_features(store, table["segment_id"], LayerSet((0,)), "std")


def test_layers_are_read_from_text(store):
    assert [s.layers for s in layer_sets("all", "alone", store)] == [(0,), (1,), (2,)]
    assert [s.name for s in layer_sets("0-1", "alone", store)] == ["0", "1"]
    assert [s.name for s in layer_sets("2,0-1", "concat", store)] == ["concat:2+0+1"]


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,1", "1,,2", "-1"])
def test_a_text_that_is_no_list_of_layers_is_refused(store, text):
    with pytest.raises(
        InputError, match=r"--layers: value is '.*', expected (all, 0-12 or 4,8|each layer once)"
    ):
        layer_sets(text, "alone", store)


def test_a_layer_the_store_lacks_is_refused(store):
    with pytest.raises(InputError, match="7 is not in the store"):
        layer_sets("1,7", "alone", store)


def test_an_unknown_combination_is_refused(store):
    with pytest.raises(InputError, match="'sum' is given, expected one of alone, concat, average"):
        layer_sets("all", "sum", store)


def test_rejected_segments_are_left_out_and_missing_ones_refused(
    tmp_path, table, features, write_store
):
    ids = table["segment_id"]
    path = write_store(tmp_path / "s", ids[2:], features[2:], rejected=[ids[0]])
    with pytest.raises(InputError, match=f"1 of {len(table)} segments has no features, first"):
        rows_with_features(table, open_store(path))
    known, rejected = rows_with_features(table.drop(index=1), open_store(path))
    assert list(known["segment_id"]) == list(ids[2:])
    assert list(rejected["segment_id"]) == [ids[0]]


def test_a_store_without_any_features_is_refused(tmp_path, table, features, write_store):
    path = write_store(tmp_path / "s", [], features[:0], rejected=table["segment_id"])
    with pytest.raises(InputError, match=f"0 of {len(table)} segments have features"):
        rows_with_features(table, open_store(path))


def test_tasks_within_a_session_are_its_speakers(table):
    tasks, skipped = make_tasks(table, "session")
    assert [task.name for task in tasks] == sorted(set(table["session"]))
    assert not skipped
    first = tasks[0]
    assert first.labels == tuple(sorted(set(table["speaker"][table["session"] == first.name])))
    truth = table["speaker"].to_numpy()[first.rows["test"]]
    assert [first.labels[code] for code in first.codes["test"]] == list(truth)


def test_purged_rows_are_in_nobodys_data(table):
    purged = table.copy()
    purged.loc[purged.index[::7], "split"] = ""
    tasks, _ = make_tasks(purged, "session")
    used = np.concatenate([rows for task in tasks for rows in task.rows.values()])
    assert sorted(used) == list(np.flatnonzero(purged["split"] != ""))


def test_splits_of_a_task_are_disjoint_and_complete(table):
    (task,), _ = make_tasks(table, "corpus")
    used = np.concatenate(list(task.rows.values()))
    assert sorted(used) == list(range(len(table)))


def test_sessions_that_cannot_be_done_are_listed_with_the_reason(table):
    first, second, third = sorted(set(table["session"]))
    lonely = table[(table["session"] != first) | (table["speaker"] == table["speaker"][0])]
    short = lonely[(lonely["session"] != second) | (lonely["split"] != "test")]
    tasks, skipped = make_tasks(short.reset_index(drop=True), "session")
    assert [task.name for task in tasks] == [third]
    assert skipped == {
        first: "1 label in train, fewer than two (12 train, 4 valid, 4 test)",
        second: "no test segments (36 train, 12 valid, 0 test)",
    }


def test_a_label_without_training_segments_has_code_minus_one(table):
    label = table["speaker"][0]
    changed = table.copy()
    changed.loc[(table["speaker"] == label) & (table["split"] == "train"), "split"] = ""
    tasks, _ = make_tasks(changed, "session")
    assert label not in tasks[0].labels
    truth = changed["speaker"].to_numpy()[tasks[0].rows["test"]]
    np.testing.assert_array_equal(tasks[0].codes["test"] == -1, truth == label)


def test_the_majority_is_the_label_with_most_training_segments(table):
    label = sorted(set(table["speaker"]))[1]
    others = (table["speaker"] != label) & (table["split"] == "train")
    fewer = table.drop(index=table.index[others][::2]).reset_index(drop=True)
    tasks, _ = make_tasks(fewer, "session")
    assert tasks[0].labels[tasks[0].majority_code] == label


def test_a_missing_validation_split_is_refused_with_the_repair(table):
    with pytest.raises(InputError, match=r"0 segments have split 'valid'.*split and --valid-share"):
        make_tasks(table[table["split"] != "valid"].reset_index(drop=True), "session")
    with pytest.raises(InputError, match="0 segments have split 'train'"):
        make_tasks(table.drop(columns="split"), "session")


def test_a_table_without_any_task_is_refused(table):
    one = table[table["speaker"] == table["speaker"][0]].reset_index(drop=True)
    expected = (
        "1 of 1 task cannot be done, first '20.*; use a table in which split train has .* two"
    )
    with pytest.raises(InputError, match=expected):
        make_tasks(one, "session")


def test_a_store_of_frames_is_refused(tmp_path, features, write_store):
    path = write_store(tmp_path / "s", [], features[:0], kind="frames", pooling="none")
    with pytest.raises(InputError, match="kind is 'frames', expected 'pooled'"):
        open_store(path)


def test_the_split_method_is_read_from_the_note_beside_the_table(tmp_path):
    path = tmp_path / "t.csv"
    assert split_method(path) == "unknown"
    note = tmp_path / "t.csv.split.json"
    rest = {"parameters": {}, "counts": {}, "purged": {}, "leaky": False}
    rest |= {"untrained": [], "untested": []}
    note.write_text(json.dumps({"method": "chronological", **rest}))
    assert split_method(path) == "chronological"
    note.write_text(json.dumps({"method": "random", **rest}))
    assert split_method(path) == "random (leaky)"
    note.write_text("{}")
    with pytest.raises(InputError, match="method, parameters, .* missing or of another type"):
        split_method(path)


def test_pairs_and_triples_are_every_two_or_three_layers_in_one_vector(store):
    pairs = layer_sets("all", "pairs", store)
    assert [one.name for one in pairs] == ["concat:0+1", "concat:0+2", "concat:1+2"]
    assert [one.layers for one in layer_sets("all", "triples", store)] == [(0, 1, 2)]
    with pytest.raises(InputError, match="layers: 2 are given for triples, expected at least 3"):
        layer_sets("0-1", "triples", store)
