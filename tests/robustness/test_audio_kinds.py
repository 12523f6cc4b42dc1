"""Every kind of audio file through the commands: `cut` and `extract` read the same samples."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.extract.audio import ReadOptions, read_segment, segments_of
from spk.extract.store.reader import FeatureStore
from spk.manifests.cutting.cut import cut_segments
from spk.manifests.table import read_table, write_table

pytestmark = pytest.mark.slow

RATE = 16000
SPANS = ((0.0, 0.5), (1.2345, 2.5), (2.9, 3.9))
EXTRACT = "spk-extract t.csv store --encoder demo --workers 0"
CUT = "spk-manifests cut t.csv cut --workers 1"


def speech(seconds, seed=0):
    times = np.arange(round(seconds * RATE)) / RATE
    sound = 0.2 * np.sin(2 * np.pi * 150 * times) * (1 + np.sin(2 * np.pi * 3 * times))
    return sound + 0.02 * np.random.default_rng(seed).standard_normal(len(times))


def rows(*files, **more):
    """Write the table of `SPANS` in every file."""
    table = pd.DataFrame(
        [(f"{f}_{i}", f, *span, "A", f) for f in files for i, span in enumerate(SPANS)],
        columns=["segment_id", "audio", "start", "end", "speaker", "session"],
    ).assign(**more)
    write_table(table, "t.csv")
    return table


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def every_coding():
    """Write a file of each coding that libsndfile writes; some codecs know 8 kHz alone."""
    names = []
    for container in soundfile.available_formats():
        for codec in soundfile.available_subtypes(container):
            for rate in (RATE, 8000):
                name = f"{container}_{codec}"
                try:
                    sound = speech(4)[:: RATE // rate]
                    soundfile.write(name, sound, rate, format=container, subtype=codec)
                except (RuntimeError, ValueError):
                    Path(name).unlink(missing_ok=True)
                    continue
                names.append(name)
                break
    return [name for name in names if not name.startswith("RAW")]


def test_cut_and_extract_take_the_same_codings_and_read_the_same_samples(here):
    names = every_coding()
    assert len(names) > 75
    table = rows(*names)
    accepted = {"cut": set(), "extract": set()}
    for name in names:
        own = table[table["audio"] == name].copy()
        if name.startswith("XI"):  # knows 44100 Hz alone, whatever is written
            own[["start", "end"]] *= RATE / 44100
        read = [
            read_segment(segment, ReadOptions(resample=True)).samples
            for segment in segments_of(own, here)
        ]
        accepted["extract"].add(name)
        report = cut_segments(own, here, here / "cut", resample=True, jobs=1)
        assert report.clipped == []
        accepted["cut"].add(name)
        for samples, file in zip(read, report.table["audio"], strict=True):
            written, _ = soundfile.read(here / "cut" / file, dtype="int16")
            wide = np.rint(samples.astype(np.float64) * 32768)
            np.testing.assert_array_equal(written, np.clip(wide, -32768, 32767))
    assert accepted["cut"] == accepted["extract"] == set(names)


def mp4(name):
    Path(name).write_bytes(b"\0\0\0\x20ftypM4A " + bytes(4000))


def no_audio(name):
    Path(name).write_text("no audio at all")


def empty(name):
    Path(name).touch()


def short_header(size):
    def make(name):
        soundfile.write(name, speech(4), RATE, format="WAV")
        content = bytearray(Path(name).read_bytes())
        content[40:44] = size.to_bytes(4, "little")
        Path(name).write_bytes(content)

    return make


@pytest.mark.parametrize(
    ("make", "name", "cause"),
    [
        (mp4, "a.m4a", "holds MP4 (m4a), expected audio that libsndfile decodes; convert it: `ffm"),
        (mp4, "a.wav", "convert it: `mv a.wav a.wav.original && ffmpeg -i a.wav.original -ar 16"),
        (no_audio, "a.flac", "cannot be read (Format not recognised), expected audio"),
        (empty, "a.ogg", "is empty, 0 bytes, expected audio"),
        (short_header(0), "a.wav", "header says 0.0 s, the file holds about 4.0 s of audio"),
        (short_header(24000), "a.wav", "header says 0.8 s, the file holds about 4.0 s of audio"),
    ],
)
def test_both_tell_the_same_cause_of_what_they_do_not_take(here, typed, told, make, name, cause):
    make(name)
    rows(name)
    assert cause in told(CUT)
    assert typed(EXTRACT).exit_code == 3
    listed = pd.read_csv("store.rejected.csv")
    late = listed[listed["segment_id"] != f"{name}_0"]
    assert late["code"].tolist() == ["unreadable"] * 2
    assert all(cause in message for message in late["message"])


def test_both_clip_to_what_decodes_and_say_so(here, typed, real_data):
    file = real_data / "fixtures" / "pydub-tessst.mp3"
    rows(str(file), start=[0.0, 0.5, 1.0], end=[0.5, 1.0, 1.578])
    note = "header says 1.5786 s, 1.5673 s decode; segments that end later are cut there"
    done = typed(f"{EXTRACT} --resample")
    assert (done.exit_code, done.stderr.count(note)) == (0, 1)
    pd.read_csv("t.csv").assign(segment_id=["a", "b", "c"]).to_csv("t.csv", index=False)
    done = typed(f"{CUT} --resample")
    assert (done.exit_code, done.stderr.count(note)) == (0, 1)
    written = read_table("cut/segments.table.csv")
    assert written["end"].iloc[2] == pytest.approx(69120 / 44100 - 1, abs=1e-4)
    assert typed(f"{CUT} --resample").exit_code == 0  # and goes on with the same


@pytest.fixture
def telephone(here):
    """Write a call: A speaks on one channel, B on the other, at the same times."""
    sides = speech(4, 1), speech(4, 2)[::-1]
    soundfile.write("call.wav", np.stack(sides, axis=1), RATE, subtype="PCM_16")
    block, _ = soundfile.read("call.wav", dtype="int16")
    return block


def of_both_sides(**more):
    table = pd.DataFrame(
        [
            (f"{who}_{i}_ch{channel}", "call.wav", *span, who, "call", str(channel))
            for channel, who in enumerate("AB")
            for i, span in enumerate(SPANS)
        ],
        columns=["segment_id", "audio", "start", "end", "speaker", "session", "channel"],
    )
    write_table(table.assign(**more), "t.csv")
    return table


def test_segments_are_cut_from_the_channel_that_their_row_names(telephone, typed):
    table = of_both_sides()
    assert typed(f"{CUT} --channel mean").exit_code == 0
    made = read_table("cut/segments.table.csv")
    assert "channel" not in made
    for row, file in zip(table.itertuples(), made["audio"], strict=True):
        samples, _ = soundfile.read(f"cut/{file}", dtype="int16", always_2d=True)
        first, stop = (int(np.floor(t * RATE + 0.5)) for t in (row.start, row.end))
        np.testing.assert_array_equal(samples[:, 0], telephone[first:stop, int(row.channel)])
    assert "0 files written, 6 already complete" in typed(f"{CUT} --channel mean").stdout


def test_a_folder_of_cuts_is_not_gone_on_with_from_another_channel(telephone, typed, told):
    of_both_sides()
    assert typed(CUT).exit_code == 0
    of_both_sides(channel=["1", "1", "1", "0", "0", "0"])
    assert "6 of the segments differ, first" in told(CUT)


def test_features_are_those_of_the_channel_that_the_row_names(telephone, typed):
    of_both_sides()
    assert typed(EXTRACT).exit_code == 0
    store = FeatureStore.open("store")
    for channel, who in enumerate("AB"):
        soundfile.write("side.wav", telephone[:, channel], RATE, subtype="PCM_16")
        rows("side.wav")
        assert typed(f"spk-extract t.csv side{who} --encoder demo --workers 0").exit_code == 0
        ids = [f"{who}_{i}_ch{channel}" for i in range(3)]
        alone = FeatureStore.open(f"side{who}").read([f"side.wav_{i}" for i in range(3)], layer=1)
        np.testing.assert_allclose(store.read(ids, layer=1), alone, atol=2e-3)
    of_both_sides()
    assert typed("spk-store verify store --table t.csv --audio .").exit_code == 0
    of_both_sides(channel=["1", "1", "1", "0", "0", "0"])
    done = typed("spk-store verify store --table t.csv --audio .")
    assert (done.exit_code, done.output.count("has other samples than those encoded")) == (1, 6)


def test_a_channel_that_is_not_there_is_refused_or_rejected(telephone, typed, told):
    of_both_sides(channel=["0", "0", "0", "2", "0", "0"])
    assert "channels are 2, expected more than 2; correct the column 'channel' of seg" in told(CUT)
    assert typed(EXTRACT).exit_code == 3
    listed = pd.read_csv("store.rejected.csv")
    assert listed[["segment_id", "code"]].to_numpy().tolist() == [["B_0_ch1", "no-channel"]]


def test_no_line_of_the_decoder_reaches_the_user(here, typed, capfd):
    soundfile.write("S1.mp3", speech(60), RATE, format="MP3", bitrate_mode="VARIABLE")
    rows("S1.mp3", start=[3.1, 20.7, 50.2], end=[5.0, 22.0, 53.0])
    capfd.readouterr()
    assert typed(EXTRACT).exit_code == 0
    assert typed(CUT).exit_code == 0
    assert "mpg123" not in capfd.readouterr().err
