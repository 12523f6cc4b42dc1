import json

import pandas as pd
import pytest

from spk.common.errors import InputError
from spk.manifests.split_record import read_record, record_of, split_method
from spk.manifests.splits.select import select_segments
from spk.manifests.splits.split import split_table
from spk.manifests.table import read_table, write_table


def alone(count=20):
    """Return a table of one speaker with so many segments of 2 s, 2 s apart."""
    starts = [4.0 * number for number in range(count)]
    table = pd.DataFrame({"segment_id": [f"s{start:g}" for start in starts], "start": starts})
    return table.assign(end=table["start"] + 2.0, audio="a.wav", speaker="A", session="S")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_how_a_table_was_split_goes_with_it_to_disk_and_back(tmp_path, suffix):
    divided = split_table(alone(), "random", seed=7)
    shorter = select_segments(divided, min_seconds=1.0).assign(more=1)
    write_table(shorter[shorter["split"] != "valid"], tmp_path / f"t.{suffix}")
    again = read_table(tmp_path / f"t.{suffix}")
    assert record_of(again) == divided.attrs["split"] == read_record(tmp_path / f"t.{suffix}")
    assert again.attrs["split"]["parameters"]["seed"] == 7
    assert split_method(again) == split_method(tmp_path / f"t.{suffix}") == "random (leaky)"


def test_the_table_itself_holds_no_second_copy(tmp_path):
    table = split_table(alone(), gap=1.0)
    write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t.parquet.split.json").unlink()
    assert "split" not in read_table(tmp_path / "t.parquet").attrs
    assert table.attrs["split"]["method"] == "chronological"


def test_a_table_without_a_record_leaves_none_of_the_table_before(tmp_path):
    write_table(split_table(alone(), gap=1.0), tmp_path / "t.csv")
    write_table(alone(), tmp_path / "t.csv")
    assert not (tmp_path / "t.csv.split.json").exists()
    assert split_method(read_table(tmp_path / "t.csv")) == "unknown"
    (tmp_path / "t.csv.split.json").write_text("mine")
    write_table(alone(), tmp_path / "t.csv")
    assert (tmp_path / "t.csv.split.json").read_text() == "mine"


def test_a_damaged_record_stops_only_who_asks_for_it(tmp_path):
    write_table(split_table(alone(), gap=1.0), tmp_path / "t.csv")
    (tmp_path / "t.csv.split.json").write_text('{\n "method": 7}')
    table = read_table(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"t\.csv\.split\.json: cannot be read .*; run spk-mani"):
        record_of(table)
    with pytest.raises(InputError, match="cannot be read"):
        write_table(table, tmp_path / "other.csv")
    assert not (tmp_path / "other.csv").exists()
    write_table(split_table(table, gap=1.0), tmp_path / "t.csv")
    assert split_method(read_table(tmp_path / "t.csv")) == "chronological"


def test_what_is_no_record_is_refused():
    table = alone()
    table.attrs["split"] = {"method": "random"}
    with pytest.raises(InputError, match=r"attrs\['split'\] is no record of a split \(parameters"):
        split_method(table)
    table.attrs["split"] = json.loads(json.dumps(split_table(alone(), gap=1.0).attrs["split"]))
    assert split_method(table) == "chronological"
