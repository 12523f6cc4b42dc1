"""One segment out of a recording."""

import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.common.audio.decoding import check_channel, decode, int16_to_float32, read_header
from spk.common.errors import InputError
from spk.extract.audio import (
    ReadOptions,
    Rejected,
    Segment,
    check_recordings,
    read_segment,
    segments_of,
)

RATE = 16000
SINE_TOLERANCE = 2e-3  # ripple of the resampling filter in the pass band


def write(path, samples, rate=RATE, subtype=None):
    soundfile.write(path, samples, rate, subtype=subtype)
    return str(path)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def rejection(path, start, end, **changes):
    with pytest.raises(Rejected) as found:
        read_segment(Segment("s", str(path), start, end), ReadOptions(**changes))
    return found.value.code, found.value.message


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_segment_is_its_own_samples_and_no_other(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", noise(3 * RATE), subtype="PCM_16")
    whole, _ = soundfile.read(path, dtype="float32")
    audio = read_segment(Segment("s", path, 0.50003, 1.25), ReadOptions())
    assert audio.samples.dtype == np.float32
    np.testing.assert_array_equal(audio.samples, whole[8000:20000])  # 0.50003 s is sample 8000.48


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_integers_are_the_float32_samples_to_the_last_bit(tmp_path, suffix):
    block = np.random.default_rng(3).integers(-32768, 32768, (RATE, 3), dtype=np.int16)
    path = write(tmp_path / f"a.{suffix}", block)
    segment = Segment("s", path, 0.1, 0.9)
    wide = read_segment(segment, ReadOptions(channel="2"))
    whole = read_segment(segment, ReadOptions(channel="2", integers=True))
    assert (wide.samples.dtype, whole.samples.dtype) == (np.float32, np.int16)
    np.testing.assert_array_equal(int16_to_float32(whole.samples), wide.samples)
    assert (whole.nbytes, whole.crc32) == (wide.nbytes, wide.crc32)


@pytest.mark.parametrize(
    ("subtype", "changes"),
    [("PCM_24", {}), ("PCM_16", {"channel": "mean"}), ("PCM_16", {"rate": 8000, "resample": True})],
)
def test_what_is_no_integer_is_not_read_as_one(tmp_path, subtype, changes):
    path = write(tmp_path / "a.wav", noise(RATE, 2), subtype=subtype)
    found, expected = (
        read_segment(Segment("s", path, 0.0, 1.0), ReadOptions(integers=integers, **changes))
        for integers in (True, False)
    )
    assert found.samples.dtype == np.float32
    np.testing.assert_array_equal(found.samples, expected.samples)


def test_the_identity_is_size_and_checksum_of_the_samples(tmp_path):
    path = write(tmp_path / "a.wav", noise(RATE), subtype="FLOAT")
    audio = read_segment(Segment("s", path, 0.0, 1.0), ReadOptions())
    assert audio.nbytes == 4 * RATE
    assert audio.crc32 == zlib.crc32(noise(RATE).tobytes())


def test_the_channel_is_the_one_asked_for_or_the_equal_average(tmp_path):
    block = noise(RATE, 3)
    segment = Segment("s", write(tmp_path / "a.wav", block, subtype="FLOAT"), 0.0, 1.0)
    for channel in (0, 2):
        audio = read_segment(segment, ReadOptions(channel=str(channel)))
        np.testing.assert_array_equal(audio.samples, block[:, channel])
    average = read_segment(segment, ReadOptions(channel="mean")).samples
    np.testing.assert_allclose(average, block.sum(axis=1) / 3, atol=1e-7)  # float32 rounding


def test_a_channel_that_is_not_there_is_refused(tmp_path):
    path = write(tmp_path / "a.wav", noise(RATE, 2))
    with pytest.raises(InputError, match=r"a\.wav: channels are 2, expected more than 5; pass"):
        read_segment(Segment("s", path, 0.0, 1.0), ReadOptions(channel="5"))


@pytest.mark.parametrize("channel", ["", "left", "-1", "1.0", "²"])
def test_a_channel_that_is_neither_index_nor_mean_is_refused(channel):
    with pytest.raises(InputError, match="expected an index from 0 or 'mean'"):
        check_channel(channel)


def test_a_channel_has_one_spelling():
    assert check_channel("01") == check_channel("1") == "1"


def test_another_rate_is_refused_until_resampling_is_asked_for(tmp_path):
    path = write(tmp_path / "a.wav", noise(44100), rate=44100)
    with pytest.raises(InputError, match=r"a\.wav: sample rate is 44100 Hz, expected 16000 Hz; pa"):
        read_segment(Segment("s", path, 0.0, 1.0), ReadOptions())


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_resampling_keeps_a_sine(tmp_path, rate):
    times = np.arange(2 * rate) / rate
    path = write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * times), rate, "FLOAT")
    audio = read_segment(Segment("s", path, 0.5, 1.5), ReadOptions(resample=True))
    assert len(audio.samples) == RATE
    expected = 0.5 * np.sin(2 * np.pi * 440 * (0.5 + np.arange(RATE) / RATE))
    inner = slice(400, -400)  # the filter sees nothing beyond the segment's ends
    np.testing.assert_allclose(audio.samples[inner], expected[inner], atol=SINE_TOLERANCE)


def test_a_file_that_is_missing_or_no_audio_is_unreadable(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "headerless.raw").write_bytes(bytes(64000))
    assert rejection(tmp_path / "headerless.raw", 0.0, 1.0)[0] == "unreadable"
    assert rejection(tmp_path / "absent.wav", 0.0, 1.0)[0] == "unreadable"
    assert rejection(tmp_path / "text.wav", 0.0, 1.0)[0] == "unreadable"


def test_a_torn_file_gives_a_rejection_and_never_other_samples(tmp_path):
    path = tmp_path / "a.flac"
    write(path, noise(10 * RATE), subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:100_000])
    assert rejection(path, 8.0, 9.0)[0] in ("unreadable", "past-end")


def test_a_segment_after_the_recording_ends_is_told(tmp_path):
    code, message = rejection(write(tmp_path / "a.wav", noise(RATE)), 0.5, 1.001)
    assert code == "past-end"
    assert "ends at 1.0000 s, the segment at 1.0010 s" in message
    assert rejection(tmp_path / "a.wav", 2.0, 3.0)[0] == "past-end"  # wholly beyond the end


def test_a_segment_shorter_than_the_receptive_field_is_told(tmp_path):
    path = write(tmp_path / "a.wav", noise(RATE))
    code, message = rejection(path, 0.0, 399 / RATE)
    assert (code, message) == ("too-short", "segment has 399 samples, expected at least 400")
    assert len(read_segment(Segment("s", path, 0.0, 400 / RATE), ReadOptions()).samples) == 400


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_told(tmp_path, value):
    samples = noise(RATE)
    samples[77] = value
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert rejection(path, 0.0, 1.0) == ("not-finite", "1 sample is not finite")
    read_segment(Segment("s", path, 0.5, 1.0), ReadOptions())  # the rest of the file is usable


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_digital_silence_is_told(tmp_path, level):
    path = write(tmp_path / "a.wav", np.full(RATE, level))
    assert rejection(path, 0.0, 1.0) == ("silent", f"all 16000 samples are {level:g}")


def test_real_recordings_decode_as_soundfile_decodes_them_whole(real_data):
    path = sorted((real_data / "meetings" / "wav").glob("*.flac"))[0]
    block, rate = soundfile.read(path, start=12345, stop=98765, dtype="float32", always_2d=True)
    audio = read_segment(Segment("s", str(path), 12345 / rate, 98765 / rate), ReadOptions())
    np.testing.assert_array_equal(audio.samples, block[:, 0])


def test_a_channel_that_the_table_names_is_read_whatever_the_run_says(tmp_path):
    block = noise(RATE, 3)
    path = write(tmp_path / "a.wav", block, subtype="FLOAT")
    table = pd.DataFrame(
        {
            "segment_id": ["a", "b", "c"],
            "audio": "a.wav",
            "start": 0.0,
            "end": 1.0,
            "channel": ["2", "", "1"],
        }
    )
    segments = segments_of(table, tmp_path)
    assert [segment.path for segment in segments] == [path] * 3
    for run in ("0", "mean", "2"):
        read = [read_segment(segment, ReadOptions(channel=run)).samples for segment in segments]
        np.testing.assert_array_equal(read[0], block[:, 2])
        np.testing.assert_array_equal(read[2], block[:, 1])
    np.testing.assert_array_equal(read[1], block[:, 2])


def test_a_channel_of_the_table_that_the_recording_has_not_rejects_its_segment_alone(tmp_path):
    path = write(tmp_path / "a.wav", noise(RATE, 2))
    segment = Segment("s", path, 0.0, 1.0, "2")
    with pytest.raises(Rejected, match=r"channels are 2, the table names 2 \(from 0\)") as found:
        read_segment(segment, ReadOptions())
    assert found.value.code == "no-channel"
    check_recordings([segment], ReadOptions(channel="5"))  # nobody is read from channel 5
    with pytest.raises(InputError, match="channels are 2, expected more than 5"):
        check_recordings([segment, replace(segment, channel="")], ReadOptions(channel="5"))


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "opus"])
def test_a_segment_of_a_lossy_recording_is_that_of_the_whole_to_the_last_sample(tmp_path, suffix):
    kind, codec = {"mp3": ("MP3", None), "ogg": ("OGG", None), "opus": ("OGG", "OPUS")}[suffix]
    path = str(tmp_path / f"a.{suffix}")
    soundfile.write(path, noise(5 * RATE), RATE, format=kind, subtype=codec)
    whole = np.concatenate([block[:, 0] for block in decode(read_header(path))])
    assert len(whole) == 5 * RATE
    for start, end in ((0.0, 1.0), (2.5, 2.7), (4.2, 4.8), (4.9, 5.0)):
        audio = read_segment(Segment("s", path, start, end), ReadOptions(shortest=1, integers=True))
        expected = whole[round(start * RATE) : round(end * RATE)]
        np.testing.assert_array_equal(audio.samples, expected)
        assert not audio.clipped


def test_a_segment_that_the_header_promised_is_clipped_to_what_decodes(real_data):
    path = str(real_data / "fixtures" / "pydub-tessst.mp3")
    reading = ReadOptions(resample=True)
    audio = read_segment(Segment("s", path, 1.0, 1.57864), reading)
    assert audio.clipped
    same = read_segment(Segment("s", path, 1.0, 69120 / 44100), reading)
    assert not same.clipped
    np.testing.assert_array_equal(audio.samples, same.samples)
    assert rejection(path, 1.0, 1.7, resample=True)[0] == "past-end"
    code, message = rejection(path, 1.57, 1.578, resample=True)
    assert (code, "replace the damaged file" in message) == ("unreadable", True)
