"""A sample position means the same to every decoder, in every container and codec."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spk.common.audio import decoding
from spk.common.audio.containers import EXACT, SUFFIXES, UNREAD
from spk.common.audio.decoder_lines import without_decoder_lines
from spk.common.audio.decoding import (
    check_length,
    count_samples,
    decode,
    end_of,
    read_channel,
    read_header,
    resample,
)
from spk.common.audio.recent import Recent
from spk.common.errors import InputError

RATE = 16000
LENGTHS = (16000, 33333, 57001)
CODINGS = [
    (container, codec)
    for container in soundfile.available_formats()
    if container != "RAW"
    for codec in soundfile.available_subtypes(container)
]


class FromStart(soundfile.SoundFile):
    """Reads on and on: an own reference that never seeks."""

    def seekable(self):
        return False


def voice(count, channels=1, rate=RATE):
    times = np.arange(count) / rate
    sound = sum(np.sin(2 * np.pi * 140 * k * times + k) / k for k in range(1, 8))
    sound = 0.1 * sound + 0.01 * np.random.default_rng(count).standard_normal(count)
    return np.stack([sound, -0.5 * sound[::-1]][:channels], axis=1).astype(np.float32)


def write(path, samples, container, codec):
    """Write with the first rate that the coding takes, or skip where it can only be read."""
    for rate in (RATE, 8000, 44100):
        try:
            soundfile.write(path, samples, rate, format=container, subtype=codec)
            return str(path)
        except (RuntimeError, ValueError):
            continue
    pytest.skip(f"libsndfile only reads {container} {codec}, or not this number of channels")


def whole(path):
    blocks = []
    with FromStart(path) as file:
        while len(block := file.read(4096, "float32", always_2d=True)):
            blocks.append(block)
    return np.concatenate(blocks)


@pytest.mark.slow
@pytest.mark.parametrize(("container", "codec"), CODINGS)
def test_every_position_of_every_coding_gives_the_samples_of_the_whole(tmp_path, container, codec):
    for number, count in enumerate(LENGTHS):
        channels = 1 + number % 2 * (codec not in ("GSM610", "DWVW_16", "DWVW_24", "G721_32"))
        path = tmp_path / f"{number}"
        write(path, voice(count, 1), container, codec)
        if channels == 2:
            try:
                soundfile.write(path, voice(count, 2), RATE, format=container, subtype=codec)
            except (RuntimeError, ValueError):
                channels = 1
                write(path, voice(count, 1), container, codec)
        header = read_header(path)
        expected = whole(path)
        assert count_samples(header) == len(expected)
        last = len(expected)
        for first in (0, 1, last // 3, last // 2, last - 1500, last - 800, last - 300, last - 1):
            stop = min(first + 300, last)
            samples = read_channel(header, first, stop, str(channels - 1))
            np.testing.assert_array_equal(samples, expected[first:stop, channels - 1])


def test_what_no_measurement_has_proved_exact_is_decoded_from_its_start(tmp_path, monkeypatch):
    path = write(tmp_path / "a", voice(RATE), "WAV", "PCM_16")
    header = read_header(path)
    assert header.exact
    unknown = header._replace(codec="NEW_CODEC")
    assert not unknown.exact
    starts = []
    monkeypatch.setattr(
        decoding, "decode", lambda h, first=0, *a, **b: starts.append(first) or decode(h, first)
    )
    np.testing.assert_array_equal(
        read_channel(unknown, 9000, 9100, "0"), read_channel(header, 9000, 9100, "0")[:100]
    )
    assert starts[0] == 0


def test_lossy_recordings_are_decoded_once_however_many_segments(tmp_path, monkeypatch):
    path = write(tmp_path / "a.ogg", voice(5 * RATE), "OGG", "VORBIS")
    header = read_header(path)
    starts = []
    real = decoding.decode

    def counting(*args, **options):
        starts.append(args)
        return real(*args, **options)

    monkeypatch.setattr(decoding, "decode", counting)
    expected = whole(path)[:, 0]
    places = range(0, 5 * RATE - 500, 1000)
    threads = [
        threading.Thread(target=lambda p=p: read_channel(header, p, p + 400, "0")) for p in places
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place in places:
        np.testing.assert_array_equal(
            read_channel(header, place, place + 400, "0"), expected[place : place + 400]
        )
    assert len(starts) == 1


def test_what_is_held_of_decoded_recordings_is_bounded(tmp_path, monkeypatch):
    """Beyond the bound the oldest are decoded again, and a larger one is held not at all."""
    paths = [write(tmp_path / f"{i}.ogg", voice(RATE), "OGG", "VORBIS") for i in range(4)]
    monkeypatch.setattr(decoding, "HELD", 2 * 4 * RATE)
    monkeypatch.setattr(decoding, "_recent", Recent(2 * 4 * RATE))
    for path in [*paths, *paths]:
        samples = read_channel(read_header(path), 500, 900, "0")
        np.testing.assert_array_equal(samples, whole(path)[500:900, 0])
        assert len(decoding._recent) <= 2
    long = write(tmp_path / "long.ogg", voice(3 * RATE), "OGG", "VORBIS")
    samples = read_channel(read_header(long), 2 * RATE, 3 * RATE, "0")
    np.testing.assert_array_equal(samples, whole(long)[2 * RATE :, 0])
    assert (read_header(long), "0") not in decoding._recent


def test_a_changed_file_is_read_anew(tmp_path):
    path = write(tmp_path / "a.ogg", voice(RATE), "OGG", "VORBIS")
    before = read_channel(read_header(path), 0, 500, "0")
    write(path, -voice(RATE), "OGG", "VORBIS")
    os.utime(path, ns=(1, 1))
    assert not np.array_equal(read_channel(read_header(path), 0, 500, "0"), before)


@pytest.mark.parametrize("name", ["pydub-tessst.mp3"])
def test_an_mp3_has_the_length_that_decodes(real_data, name):
    header = read_header(real_data / "fixtures" / name)
    assert (header.frames, count_samples(header)) == (69618, 69120)
    assert end_of(header, 69000, 69618, "s") == 69120
    with pytest.raises(InputError, match=r"decodes to 69120 samples .*replace the damaged file"):
        end_of(header, 69200, 69618, "s")
    with pytest.raises(decoding.PastEndError, match=r"ends at 1\.5673 s, s at 1\.8141 s"):
        end_of(header, 69000, 80000, "s")


@pytest.mark.parametrize(("suffix", "kind"), [("mp3", "MP3"), ("flac", "FLAC")])
def test_a_torn_recording_is_as_long_as_what_decodes(tmp_path, suffix, kind):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, voice(30 * RATE), RATE, format=kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    header = read_header(path)
    count = count_samples(header)
    assert header.frames == 30 * RATE
    assert 10 * RATE < count < 29 * RATE
    assert end_of(header, count - 100, count + 100, "s") == count
    with pytest.raises(InputError, match="as its header says; replace the damaged file"):
        end_of(header, count + 10, count + 100, "s")


@pytest.mark.parametrize("name", ["lhotse-stereo.mp3", "lhotse-mono_c0.opus", "pydub-tessst.mp3"])
def test_recordings_of_other_projects_are_read_from_any_place(real_data, name):
    path = real_data / "fixtures" / name
    expected = whole(path)
    for first in (0, 7, len(expected) // 2, len(expected) - 400):
        samples = read_channel(read_header(path), first, first + 300, "mean")
        mean = expected[first : first + 300].mean(axis=1, dtype=np.float32)
        np.testing.assert_array_equal(samples, mean)


def riff(name, samples, *, riff_size=None, data_size=None, before=b"", after=b""):
    """Write a 16-bit mono WAV by hand; sizes as given, right ones where not."""
    data = samples.astype("<i2").tobytes()
    fmt = b"fmt " + b"".join(
        value.to_bytes(size, "little")
        for value, size in ((16, 4), (1, 2), (1, 2), (RATE, 4), (2 * RATE, 4), (2, 2), (16, 2))
    )
    data_size = len(data) if data_size is None else data_size
    body = fmt + before + b"data" + data_size.to_bytes(4, "little") + data + after
    size = len(body) + 4 if riff_size is None else riff_size
    Path(name).write_bytes(b"RIFF" + size.to_bytes(4, "little") + b"WAVE" + body)
    return read_header(name)


NOISE = np.random.default_rng(0).integers(-9000, 9000, 5 * RATE)
INFO = b"LIST" + (26).to_bytes(4, "little") + b"INFOISFT" + (14).to_bytes(4, "little") + b"L" * 14
JPEG = b"APIC\xff\xd8" + np.random.default_rng(1).bytes(20000)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"riff_size": 0, "data_size": 0}, "0.0"),
        ({"riff_size": 36, "data_size": 0}, "0.0"),
        ({"data_size": 64000}, "2.0"),  # as a length that wrapped round at 4 GB
        ({"data_size": 32000, "before": INFO}, "1.0"),
        ({"data_size": 31999}, "1.0"),  # an odd one
    ],
)
def test_a_header_that_tells_too_little_is_blamed_with_what_the_file_holds(tmp_path, sizes, says):
    header = riff(tmp_path / "a.wav", NOISE, **sizes)
    with pytest.raises(InputError, match=f"says {says} s, the file holds about 5.0 s of audio"):
        check_length(header)


def without_first_frame(content):
    """Return an MP3 without the frame that holds the table of frames, as streams have none."""
    table = content.find(b"Xing") if b"Xing" in content else content.find(b"Info")
    begin = content.rfind(b"\xff", 0, table)
    after = content.index(content[begin : begin + 2], begin + 4)
    return content[:begin] + content[after:]


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\1\0" + bytes(128)])
def test_an_mp3_without_a_table_of_frames_is_blamed_where_libsndfile_guesses_less(
    tmp_path, rate, tag
):
    path = tmp_path / "a.mp3"
    sound = voice(20 * rate, rate=rate)
    sound[: 2 * rate] = np.random.default_rng(0).uniform(-0.9, 0.9, (2 * rate, 1))  # many bits
    sound[2 * rate :] *= 0.01
    soundfile.write(path, sound, rate, format="MP3", bitrate_mode="VARIABLE")
    check_length(read_header(path))
    path.write_bytes(tag + without_first_frame(path.read_bytes()))
    header = read_header(path)
    if header.seconds > 18.5:
        pytest.skip("libsndfile guesses the length of this one rightly")
    with pytest.raises(InputError, match=r"holds about 20\.\d s .*ffmpeg -i \S* -c copy -f mp3"):
        check_length(header)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"riff_size": 0xFFFFFFFF, "data_size": 0xFFFFFFFF},  # libsndfile reads to the end
        {"riff_size": 0x7FFFFFFF, "data_size": 0x7FFFFFDB},
        {"before": INFO, "after": INFO},
        {"after": INFO + b"bext" + (40000).to_bytes(4, "little") + bytes(40000)},
        {"after": bytes(40000)},  # padded to blocks of the disk
        {"after": JPEG},  # less than a second
    ],
)
def test_a_header_that_is_right_is_not_blamed_for_what_stands_around(tmp_path, parts):
    header = riff(tmp_path / "a.wav", NOISE, **parts)
    assert header.frames == len(NOISE)
    check_length(header)


@pytest.mark.parametrize(
    ("name", "head", "told"),
    [
        ("a.m4a", b"\0\0\0\x20ftypM4A ", r"holds MP4 \(m4a\).*`ffmpeg -i \S*a.m4a -ar 16000 \S*a"),
        ("a b.wav", b"\0\0\0\x20ftypisom", r"`mv '.*a b.wav' '.*a b.wav.original' && ffmpeg -i"),
        ("a.wma", bytes.fromhex("3026b2758e66cf11"), r"holds ASF \(wma\)"),
        ("a.wav", bytes.fromhex("1a45dfa3"), "holds Matroska or WebM"),
        ("a.amr", b"what?", "is a .amr file"),
        (
            "a.sph",
            b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00",
            "sph2pipe -f",
        ),
        ("a.wav", b"version https://git-lfs.github.com/spec/v1\n", "type `git lfs pull`"),
        ("a.wav", b"", "is empty, 0 bytes"),
        ("a.wav", b"hello", r"cannot be read \(Format not recognised\), expected audio"),
        ("a.raw", bytes(999), r"`ffmpeg -f s16le -ar 16000 -ac 1 -i \S*a.raw \S*a.wav`"),
    ],
)
def test_what_is_no_recording_is_named_with_what_to_type(tmp_path, name, head, told):
    path = tmp_path / name
    path.write_bytes(head + (bytes(2000) if head else b""))
    with pytest.raises(InputError, match=told):
        read_header(path)


def test_every_container_of_libsndfile_has_its_suffix():
    usual = {"RF64": ".rf64", "WAVEX": ".wav", "SVX": ".svx", "IRCAM": ".sf", "MAT4": ".mat"}
    usual |= {"NIST": ".sph", "MPC2K": ".mpc2k", "MAT5": ".mat", "AIFF": ".aifc"}
    suffixes = (*SUFFIXES, ".mat")
    for container in soundfile.available_formats():
        if container != "RAW":
            assert usual.get(container, f".{container.lower()}") in suffixes
    assert not set(SUFFIXES) & set(UNREAD)
    assert set(EXACT) <= set(soundfile.available_formats())


def test_int16_and_float32_resample_to_the_same():
    samples = np.random.default_rng(0).integers(-9000, 9000, 8000).astype(np.int16)
    as_floats = (samples / 32768).astype(np.float32)
    np.testing.assert_array_equal(resample(samples, 8000, RATE), resample(as_floats, 8000, RATE))
    assert resample(samples, RATE, RATE) is samples


CLOSED = """
import os, sys, threading
from spk.common.audio.decoding import read_channel, read_header, count_samples
def own():
    for i in range(200):
        os.write(2, b"line %d of ours\\n" % i)
thread = threading.Thread(target=own); thread.start()
for path in sys.argv[1:]:
    header = read_header(path)
    try:
        count_samples(header); read_channel(header, 0, 100, "0")
    except ValueError as problem:
        print(problem, file=sys.stderr)
thread.join()
"""


def test_remarks_of_the_decoder_are_dropped_and_every_other_line_comes(tmp_path):
    sound = tmp_path / "a.mp3"
    soundfile.write(sound, voice(60 * RATE), RATE, format="MP3", bitrate_mode="VARIABLE")
    content = sound.read_bytes()
    (tmp_path / "torn.mp3").write_bytes(content[: len(content) // 2])
    broken = bytearray(content)
    broken[5000:9000] = bytes(4000)
    (tmp_path / "broken.mp3").write_bytes(broken)
    files = [str(tmp_path / name) for name in ("a.mp3", "torn.mp3", "broken.mp3")]
    done = subprocess.run(
        [sys.executable, "-c", CLOSED, *files], capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert [line for line in lines if "ours" in line] == [f"line {i} of ours" for i in range(200)]
    assert [
        line for line in lines if "ours" not in line and "replace the damaged" not in line
    ] == []


def test_stderr_is_as_before_when_the_decoder_has_paused(capfd):
    with without_decoder_lines():
        os.write(2, b"[src/libmpg123/parse.c:f():1] error: no\nours\n")
        with without_decoder_lines():
            os.write(2, b"Note: Trying to resync...\nmore\n")
        os.write(2, b"half")
    os.write(2, b" a line\n")
    assert capfd.readouterr().err == "ours\nmore\nhalf a line\n"
