"""lhotse's manifests: supervisions, cuts and recordings, by the fields that real ones have."""

import gzip
import json

import pytest

from spk.common.errors import InputError
from spk.manifests.formats.lhotse import read_lhotse

ROW = {"id": "a", "recording_id": "r", "start": 0.5, "duration": 1.25, "speaker": "Anna"}


def write(folder, *rows, name="supervisions.jsonl"):
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    data = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (folder / name).write_bytes(data)
    return folder / name


def turns(path, **options):
    return [
        (t.session, t.speaker, t.start, t.end, t.channel)
        for t in read_lhotse(path, **options).turns
    ]


def test_lines_compressed_lines_and_lists_are_read_alike(tmp_path):
    plain, packed = write(tmp_path, ROW, ROW), write(tmp_path, ROW, ROW, name="b.jsonl.gz")
    (tmp_path / "c.json").write_text(json.dumps([ROW, ROW], indent=1))
    for path in (plain, packed, tmp_path / "c.json"):
        assert turns(path) == [("r", "Anna", 0.5, 1.75, "")] * 2


def test_ends_are_rounded_as_lhotse_does(tmp_path):
    row = {**ROW, "start": 1.1, "duration": 1.740000000000009}
    assert turns(write(tmp_path, row))[0][3] == 2.84


def test_a_cuts_supervisions_are_moved_to_the_recordings_clock(tmp_path):
    cut = {"id": "c", "start": 10.0, "duration": 5, "type": "MonoCut", "supervisions": [ROW, ROW]}
    assert turns(write(tmp_path, cut, name="cuts.jsonl")) == [("r", "Anna", 10.5, 11.75, "")] * 2


def test_channels_are_kept_where_a_recording_has_others_than_the_first(tmp_path):
    rows = [{**ROW, "channel": 0}, {**ROW, "start": 3, "channel": [1]}]
    other = {**ROW, "recording_id": "s", "channel": 0}
    several = {**ROW, "start": 5, "channel": [0, 1]}
    assert [turn[4] for turn in turns(write(tmp_path, *rows, several, other))] == ["0", "1", "", ""]


def test_recordings_hold_no_turn_and_are_passed_over(tmp_path):
    write(tmp_path, {"id": "r", "sources": [], "sampling_rate": 16000}, name="recordings.jsonl")
    write(tmp_path, ROW, {k: v for k, v in ROW.items() if k != "speaker"})
    annotation = read_lhotse(tmp_path)
    assert len(annotation.turns) == 1
    assert "1 recording holds no turn" in [note.message for note in annotation.notes]
    assert "1 row without speaker gives no turn" in [note.message for note in annotation.notes]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {**ROW, "start": "x"},
            "supervisions.jsonl, row 1: start is 'x', expected a finite number",
        ),
        ({**ROW, "duration": None}, "row 1: duration is None, expected a finite number"),
        ({**ROW, "duration": -1}, "row 1: duration is '-1' s, expected > 0"),
        ({**ROW, "channel": "left"}, "row 1: channel is 'left', expected an index from 0"),
        ({**ROW, "speaker": ["A"]}, r"row 1: speaker is \['A'\], expected text"),
        ({"id": "m", "tracks": []}, "expected a supervision or a cut .*, of one recording"),
        ({"a": 1}, r"row 1: is an object with \['a'\], expected a supervision or a cut of lhotse"),
        ({"supervisions": [3]}, "row 1: is 3, expected a supervision"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        turns(write(tmp_path, row))
    assert turns(write(tmp_path, row, ROW), skip_bad=True) == [("r", "Anna", 0.5, 1.75, "")]


def test_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path, ROW, name="a.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(
        InputError, match=r"a\.jsonl\.gz: cannot be read \(.*\); write the file again"
    ):
        turns(path)
    (tmp_path / "b.jsonl").write_text('{"id": ')
    with pytest.raises(InputError, match="b.jsonl, line 1: is not JSON"):
        turns(tmp_path / "b.jsonl")


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("spk.manifests.formats.json_values.LARGEST", 100)
    with pytest.raises(InputError, match="unpacks to more than 100 bytes, expected less"):
        turns(write(tmp_path, *[ROW] * 9, name="a.jsonl.gz"))
