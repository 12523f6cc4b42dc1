import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from spk.classify.report.errors import LONGEST, Clips, find_errors, players
from spk.classify.report.runs import read_runs
from spk.manifests.predictions import with_unknown


@pytest.fixture
def runs(heard):
    return read_runs([str(heard / "one"), str(heard / "two.csv")])


@pytest.fixture
def table(heard_table):
    return heard_table().set_index("segment_id")


def test_the_most_confident_errors_of_each_run_come_first(runs, table):
    found = find_errors(runs, table, most=2)
    assert [(one.run, round(one.score, 2)) for one in found] == [(0, 0.72), (0, 0.60), (1, 0.54)]
    assert all(one.speaker != one.predicted for one in found)
    row = table.loc[found[0].segment_id]
    assert (found[0].start, found[0].end, found[0].overlap) == tuple(
        row[["start", "end", "overlap"]]
    )
    assert find_errors(runs, None, most=1)[0].start is None


def test_nobody_is_quite_sure(runs):
    one = find_errors(runs, None, most=1)[0]
    assert replace(one, score=0.99999).sure == "99.9 %"


def test_a_clip_is_what_was_recorded(runs, table, heard):
    clips = Clips(heard / "wav", table)
    name = table.index[3]
    player = clips.player(name, "c", LONGEST)
    head, _, data = clips.sounds[player.clip].partition(",")
    assert head == "data:audio/flac;base64"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
    whole, _ = soundfile.read(heard / "wav" / table.loc[name, "audio"], dtype="float32")
    first = round(table.loc[name, "start"] * 16000)
    assert rate == 16000
    assert np.allclose(samples, whole[first : first + len(samples)], atol=1 / 2**14)
    assert len(samples) == round((table.loc[name, "end"] - table.loc[name, "start"]) * 16000)


def test_a_long_clip_is_cut_and_says_so(table, heard):
    table = table.assign(end=table["start"] + 2.0)
    clips = Clips(heard / "wav", table)
    player = clips.player(table.index[0], "c", 0.5)
    data = clips.sounds[player.clip].partition(",")[2]
    assert player.caption == "c, first 0.5 of 2.0 s"
    assert soundfile.info(io.BytesIO(base64.b64decode(data))).frames == 8000


def test_samples_are_the_cleanest_and_longest_training_segments_of_the_meeting(runs, table, heard):
    one = find_errors(runs, table, most=1)[0]
    clips = Clips(heard / "wav", table)
    found = players(one, clips, ("true", "taken"))
    assert [p.caption for p in found] == [
        "this segment",
        "taken, whom it was taken for",
        "true, who it was",
    ]
    rows = table[(table["session"] == one.session) & (table["split"] == "train")]
    for speaker, player in ((one.predicted, found[1]), (one.speaker, found[2])):
        mine = rows[(rows["speaker"] == speaker) & (rows["overlap"] == 0)]
        best = (mine["end"] - mine["start"]).idxmax()
        assert clips.player(best, "", 4.0).clip == player.clip


def test_a_clip_is_kept_once(runs, table, heard):
    clips = Clips(heard / "wav", table)
    for one in find_errors(runs, table, most=9):
        players(one, clips, ("a", "b"))
    assert len(clips.sounds) == len(set(clips.sounds.values())) == 7  # 3 errors, 4 speakers


def test_missing_audio_and_a_speaker_without_training_are_notes(runs, table, tmp_path):
    one = find_errors(runs, table, most=1)[0]
    kept = table[(table["speaker"] != one.predicted) | (table["split"] != "train")]
    found = players(one, Clips(tmp_path, kept), ("a", "b"))
    assert found[0].note == "1.wav: the file is missing or cannot be decoded"
    assert found[1].note == "no training segment of this speaker is in the table"
    assert not any(player.clip for player in found)


def test_who_is_named_unknown_is_no_mistake(runs):
    scores = sorted(error.score for error in find_errors(runs[:1], None, most=20))
    assert len(scores) == 3
    rows = with_unknown(runs[0].predictions, scores[1] + 1e-9)
    unsure = replace(runs[0], predictions=rows)
    assert [error.score for error in find_errors([unsure], None, most=20)] == scores[2:]
