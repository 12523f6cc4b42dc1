import os
import stat

import pandas as pd
import pytest

from spk.common.errors import InputError
from spk.common.files import atomic_write
from spk.manifests.table import (
    check_predictions,
    check_table,
    read_predictions,
    read_table,
    sample_span,
    segment_id,
    write_predictions,
    write_table,
)


def table(**changes: object) -> pd.DataFrame:
    columns: dict[str, object] = {
        "segment_id": ["a", "b"],
        "audio": ["x.flac", "x.flac"],
        "start": [0.1, 2.0],
        "end": [1.9, 3.25],
        "speaker": ["001", "NA"],
        "session": ["NA", "0017"],
    }
    return pd.DataFrame({**columns, **changes})


def predictions(**changes: object) -> pd.DataFrame:
    columns: dict[str, object] = {
        "segment_id": ["a", "b"],
        "session": ["s", "s"],
        "speaker": ["001", "002"],
        "predicted": ["001", "001"],
        "score": [0.9, 0.5],
        "split": ["test", "test"],
        "model": ["ridge", "ridge"],
    }
    return pd.DataFrame({**columns, **changes})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_is_read_as_it_was_written(tmp_path, suffix):
    written = table(line=[4, 0], overlap=[0.0, 1 / 3], split=["train", ""])
    write_table(written, tmp_path / f"t.{suffix}")
    pd.testing.assert_frame_equal(read_table(tmp_path / f"t.{suffix}"), check_table(written))


def test_numbers_and_na_stay_text_in_csv(tmp_path):
    write_table(table(), tmp_path / "t.csv")
    read = read_table(tmp_path / "t.csv")
    assert list(read["speaker"]) == ["001", "NA"]
    assert list(read["session"]) == ["NA", "0017"]


def test_predictions_are_read_as_they_were_written(tmp_path):
    written = predictions(scores=['{"001": 0.9}', '{"001": 0.5}'])
    write_predictions(written, tmp_path / "p.csv")
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "p.csv"), check_predictions(written))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment_id": ["a", "a"]}, "segment_id of 1 row is given before, first 'a' in row 2"),
        ({"start": [0.1, 3.25]}, "start of 1 row is below 0 or not before its end, first 3.25"),
        ({"start": [-0.1, 2]}, "expected 0 <= start < end; correct the table"),
        ({"end": [1.9, float("inf")]}, "end of 1 row is not a finite number, first inf"),
        ({"end": ["x", 1]}, "column 'end' holds what is not float64"),
        ({"session": ["", "s"]}, "session of 1 row is empty"),
        ({"overlap": [0, 1.1]}, "overlap of 1 row is out of range, first 1.1"),
        ({"split": ["train", "dev"]}, "split of 1 row is unknown, first 'dev'"),
        ({"speaker": ["001", None]}, "'speaker' holds what is not str .row 2 is missing"),
        ({"line": [1, 2.7]}, "'line' holds what is not int64 .not all are whole"),
        ({"line": [0, -1]}, "line of 1 row is below 0, first -1 in row 2"),
        ({"speaker": ["a", "<NA>"]}, "speaker of 1 row is a placeholder, first '<NA>' in row 2"),
        ({"channel": ["0", "left"]}, "channel of 1 row is no channel, first 'left' in row 2"),
    ],
)
def test_a_wrong_table_is_refused_with_its_first_offender(changes, message):
    with pytest.raises(InputError, match=message):
        check_table(table(**changes))


def test_missing_columns_are_named():
    with pytest.raises(InputError, match=r"t.csv: columns \['session'\] are missing, found"):
        check_table(table().drop(columns="session"), where="t.csv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": [0.9, 1.5]}, "score of 1 row is out of range, first 1.5 in row 2"),
        ({"segment_id": ["a", "a"]}, "first 'a of ridge' in row 2"),
    ],
)
def test_wrong_predictions_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        check_predictions(predictions(**changes))


def test_files_that_are_no_tables_are_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="t.parquet: cannot be read"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="u.csv: no such file; make it with spk-manifests"):
        read_table(tmp_path / "u.csv")
    with pytest.raises(InputError, match="suffix is '.txt', expected .csv or .parquet"):
        read_table(tmp_path / "t.txt")
    (tmp_path / "e.csv").write_text("\n")
    with pytest.raises(
        InputError, match="e.csv: is empty, 1 byte, expected a table; write it again"
    ):
        read_table(tmp_path / "e.csv")


def test_an_annotation_in_the_place_of_a_table_is_told_with_its_command(tmp_path):
    (tmp_path / "m.json").write_text('{"segments": []}')
    with pytest.raises(InputError, match="m.json: is a JSON file, .*; run spk-manifests whisperx"):
        read_table(tmp_path / "m.json")
    (tmp_path / "m.rttm").write_text("SPEAKER S1 1 0.5 2 <NA> <NA> Anna <NA> <NA>")
    with pytest.raises(
        InputError, match="is an RTTM, expected a table, .*; run spk-manifests rttm"
    ):
        read_table(tmp_path / "m.rttm")


def test_predictions_and_tables_are_told_apart(tmp_path):
    write_predictions(predictions(start=0.0, end=1.0), tmp_path / "p.csv")
    with pytest.raises(InputError, match="p.csv: is a predictions table: .*'audio'.* missing"):
        read_table(tmp_path / "p.csv")
    predictions().drop(columns="model").to_csv(tmp_path / "q.csv", index=False)
    with pytest.raises(InputError, match="'model'. are missing.*; make the table with spk-class"):
        read_predictions(tmp_path / "q.csv")
    with pytest.raises(InputError, match="u.csv: no such file; make it with spk-classify predict"):
        read_predictions(tmp_path / "u.csv")


def test_seconds_become_samples_as_counted_by_hand():
    # 35.8939 s * 16000 = 574302.4 and 37.4190 s * 16000 = 598704.0
    assert sample_span(35.8939, 37.4190, 16000) == (574302, 598704)
    assert sample_span(0.5 / 16000, 1, 16000) == (1, 16000), "halves are rounded up"


def test_the_id_of_a_turn_sorts_by_time_and_keeps_a_tenth_of_a_millisecond():
    ids = [segment_id("s", "a", start, start + 1) for start in (9.5, 10.25, 1000.0001)]
    assert ids == sorted(ids)
    assert ids[2] == "s_a_1000.0001_1001.0001"


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    file = tmp_path / "t.csv"
    atomic_write(file, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(InputError, match=r"t\.csv: cannot be written \(disk\), expected a folder"):
        atomic_write(file, b"new")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_table_with_a_missing_name_is_refused_in_parquet_too(tmp_path):
    table(speaker=["001", None]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t\.parquet: column 'speaker' .*row 2 is missing"):
        read_table(tmp_path / "t.parquet")


def test_a_place_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"t\.csv: cannot be written \(File exists\), expected"):
        write_table(table(), tmp_path / "file" / "t.csv")


def test_written_files_have_the_permissions_of_the_umask(tmp_path):
    mask = os.umask(0o027)
    try:
        atomic_write(tmp_path / "t.csv", b"x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "t.csv").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("holds", "said"),
    [
        ("store.json", "is a store, expected a table, .csv or .parquet; name the table itself"),
        ("model.json", "is a model, expected a table, .csv or .parquet; name the table itself"),
        ("cells.jsonl predictions.csv", "is a sweep, expected a table, .csv or .parquet; name "),
        ("segments.csv", "is a folder, expected a table, .csv or .parquet; name "),
        ("", "no such file, expected a .csv or .parquet; correct the path"),
    ],
)
def test_a_folder_given_as_a_table_is_called_what_it_is(tmp_path, holds, said):
    place = tmp_path / ("run.v1" if holds else "nowhere")
    for name in holds.split():
        place.mkdir(exist_ok=True)
        (place / name).write_text("")
    for read in (read_table, read_predictions):
        with pytest.raises(InputError) as caught:
            read(place)
        assert said in str(caught.value)
        tables = [name for name in holds.split() if name.endswith(".csv")]
        assert str(caught.value).endswith(tuple(str(place / name) for name in tables) or (said,))
