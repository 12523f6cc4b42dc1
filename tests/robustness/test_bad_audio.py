"""Audio that is broken, strange or hostile: what each command tells of it, or that it is read."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from spk.extract.store.reader import FeatureStore

RATE = 16000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE)
EXTRACT = "spk-extract t.csv store --encoder demo --workers 0"
CUT = "spk-manifests cut t.csv cut --workers 1"


def wav(samples=NOISE, rate=RATE, subtype="PCM_16", name="a.wav"):
    soundfile.write(name, samples, rate, subtype=subtype)
    return Path(name).read_bytes()


def flac():
    soundfile.write("x.flac", NOISE, RATE)
    return Path("x.flac").read_bytes()


def with_one(value):
    samples = NOISE.copy()
    samples[100] = value
    return wav(samples, subtype="FLOAT")


def with_rate(rate):
    content = bytearray(wav())
    content[24:28] = rate.to_bytes(4, "little")
    return bytes(content)


def with_channels(count):
    content = bytearray(wav())
    content[22:24] = count.to_bytes(2, "little")
    return bytes(content)


UNREADABLE = 'unreadable,"a.wav: '
REJECTED = {  # name: content, what the listing of the rejected says
    "empty file": (lambda: b"", 'unreadable,"a.wav: is empty, 0 bytes, expected audio; copy'),
    "text": (
        lambda: b"hello" * 99,
        f"{UNREADABLE}cannot be read (Format not recognised), expected",
    ),
    "no channel": (lambda: with_channels(0), UNREADABLE),
    "rate of 0 Hz": (lambda: with_rate(0), UNREADABLE),
    "header only": (
        lambda: wav()[:44],
        'past-end,"a.wav: ends at 0.0000 s, the segment at 1.0000 s"',
    ),
    "truncated WAV": (
        lambda: wav()[:20000],
        'past-end,"a.wav: ends at 0.6236 s, the segment at 1.0000 s"',
    ),
    "truncated FLAC": (lambda: flac()[:500], UNREADABLE),
    "NaN": (lambda: with_one(np.nan), "not-finite,1 sample is not finite"),
    "infinite": (lambda: with_one(-np.inf), "not-finite,1 sample is not finite"),
    "double beyond float": (
        lambda: wav(np.sign(NOISE) * 1e300, subtype="DOUBLE"),
        "not-finite,16000 samples are not finite",
    ),
    "1e25": (
        lambda: with_one(1e25),
        'out-of-range,"samples reach 1e+25, expected at most 2.14748e+09"',
    ),
    "silence": (lambda: wav(NOISE * 0), "silent,all 16000 samples are 0"),
}
READ = {  # what sounds right is read, whatever it looks like
    "FLAC called WAV": flac,
    "24 bits": lambda: wav(subtype="PCM_24"),
    "float": lambda: wav(subtype="FLOAT"),
    "clipping": lambda: wav(np.sign(NOISE)),
    "integers as floats": lambda: wav(NOISE * 2**31, subtype="FLOAT"),
}


@pytest.fixture
def table(tmp_path, monkeypatch, one_row):
    monkeypatch.chdir(tmp_path)

    def write(content=None, **changes):
        if content is not None:
            Path("a.wav").write_bytes(content)
        one_row(**changes).to_csv("t.csv", index=False)

    return write


@pytest.mark.parametrize("case", REJECTED)
def test_a_segment_without_usable_samples_is_rejected_with_its_reason(table, typed, case):
    make, reason = REJECTED[case]
    table(make())
    done = typed(EXTRACT)
    assert done.exit_code == 3, done.output
    assert "0 of 1 segment have features" in done.stdout
    assert Path("store.rejected.csv").read_text().split("\n")[1].startswith(f"a,{reason}")


@pytest.mark.parametrize("case", READ)
def test_what_sounds_right_is_read(table, typed, case):
    table(READ[case]())
    assert typed(EXTRACT).exit_code == 0
    assert np.isfinite(FeatureStore.open("store").read(["a"], 0)).all()
    assert typed(CUT).exit_code == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "a.wav: is empty, 0 bytes, expected audio; copy the recording again"),
        (lambda: wav()[:44], "a.wav: ends at 0.0000 s, segment 'a' at 1.0000 s; make the table"),
        (lambda: wav()[:20000], "a.wav: ends at 0.6236 s, segment 'a' at 1.0000 s; make the table"),
        (lambda: flac()[:500], "a.wav: "),
        (lambda: with_one(np.nan), "a.wav: 1 sample of 'a.wav' is NaN or infinite, expected"),
        (lambda: with_one(np.inf), "a.wav: 1 sample of 'a.wav' is NaN or infinite, expected"),
        (lambda: with_rate(8000), "a.wav: sample rate is 8000 Hz, expected 16000 Hz; pass --res"),
        (lambda: with_rate(0), "a.wav: cannot be read"),
    ],
)
def test_cut_tells_what_is_wrong_and_writes_no_file_of_it(table, told, content, message):
    table(content())
    assert message in told(CUT)
    assert not Path("cut/a.wav").exists()


@pytest.mark.parametrize(
    ("rate", "more", "message"),
    [
        (8000, "", "a.wav: sample rate is 8000 Hz, expected 16000 Hz; pass --resample"),
        (44100, "", "a.wav: sample rate is 44100 Hz, expected 16000 Hz; pass --resample"),
        (RATE, "--channel 1", "a.wav: channels are 1, expected more than 1; pass --channel 0 or"),
        (RATE, "--channel 99999999999999999999", "channels are 1, expected more than 9999999"),
        (RATE, "--channel none", "--channel: value is 'none', expected an index from 0 or 'mean'"),
        (RATE, "--channel ²", "--channel: value is '²', expected an index from 0 or 'mean'"),
    ],
)
def test_what_the_whole_run_was_told_wrong_is_refused(table, told, rate, more, message):
    table(wav(rate=rate))
    assert message in told(f"{EXTRACT} {more}")


@pytest.mark.parametrize("rate", [8000, 44100])
def test_another_rate_is_read_when_asked_for(table, typed, rate):
    table(wav(rate=rate))
    assert typed(f"{EXTRACT} --resample").exit_code == 0
    assert typed(f"{CUT} --resample").exit_code == 0


def test_channels_that_are_finite_alone_and_infinite_together_are_rejected(table, typed):
    """Their sum overflows; a rejection, no warning and no NaN."""
    table(wav(np.stack([np.sign(NOISE) * 3e38] * 2, axis=1), subtype="FLOAT"))
    assert typed(f"{EXTRACT} --channel mean").exit_code == 3
    assert "a,not-finite,16000" in Path("store.rejected.csv").read_text()


def test_a_segment_of_one_sample_is_too_short(table, typed):
    table(wav(), end=1 / RATE)
    assert typed(EXTRACT).exit_code == 3
    expected = 'a,too-short,"segment has 1 sample, expected at least 400"'
    assert expected in Path("store.rejected.csv").read_text()


@pytest.mark.parametrize("name", ["a b.wav", "会议.wav", "q\"uo'te.wav", "-x.wav", "%s{0}.wav"])
def test_a_file_may_be_called_anything(table, typed, name):
    wav(name=name)
    table(audio=name)
    assert typed(EXTRACT).exit_code == 0
    assert typed(CUT).exit_code == 0


@pytest.fixture
def ends():
    """End a test that waits for the other end of a pipe."""

    def late(*_):
        pytest.fail("still waiting")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device"])
def test_no_pipe_or_device_is_opened(table, typed, told, tmp_path, ends, kind):
    name = {"pipe": "pipe.wav", "link to a pipe": "link.wav", "device": "/dev/zero"}[kind]
    os.mkfifo("pipe.wav")
    os.symlink("pipe.wav", "link.wav")
    table(audio=name)
    assert "1 of 1 recording is missing" in told(EXTRACT)
    assert f"{name}: cannot be read (a folder, pipe or device), expected" in told(CUT)
    good = pd.read_csv("t.csv").assign(segment_id="good", audio=str(tmp_path / "good.wav"))
    soundfile.write("good.wav", np.random.default_rng(1).uniform(-0.5, 0.5, 16000), 16000)
    pd.concat([pd.read_csv("t.csv"), good]).to_csv("t.csv", index=False)
    assert typed(EXTRACT).exit_code == 3  # the absolute path is read
    listed = pd.read_csv("store.rejected.csv")
    assert listed["segment_id"].tolist() == ["a"]
    assert listed["code"].tolist() == ["unreadable"]
    assert listed["message"].tolist() == [
        f"{name}: cannot be read (a folder, pipe or device), expected an audio file; correct the "
        "audio folder"
    ]


@pytest.mark.parametrize("name", ["link.wav", "folder.wav", "nothing.wav", "x" * 5000 + ".wav"])
def test_what_is_no_file_is_told(table, told, name):
    os.symlink("nothing.wav", "link.wav")
    os.mkdir("folder.wav")
    table(audio=name)
    missing = f".: 1 of 1 recording is missing, first {name!r}; name the"
    assert missing in told(EXTRACT, longest=6000)
    there = os.path.lexists(name)
    assert (f"{name}: cannot be read" if there else missing) in told(CUT, longest=12000)


def test_a_suffix_that_means_no_header_is_told(table, typed, told):
    Path("a.raw").write_bytes(wav())
    table(audio="a.raw")
    assert "a.raw: cannot be read (samplerate must be specified), expected" in told(CUT)
    assert typed(EXTRACT).exit_code == 3
    Path("ref.csv").write_text("path,label\n./S1_001_0003.raw,S1_001\n")
    Path("S1_001_0003.raw").write_bytes(wav())
    assert "cannot be read (samplerate must be" in told("spk-manifests csv ref.csv o.csv")


PEAK = """
from spk.manifests.cli import main
main("cut t.csv {}.out --workers 1".split(), standalone_mode=False)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


@pytest.mark.slow
def test_a_recording_of_three_hours_is_never_held_whole(table):
    """It is 346 MB of 16-bit samples; cutting its end may take 100 MB more than 3 s take."""
    with soundfile.SoundFile("long.wav", "w", RATE, 1, "PCM_16") as file:
        for _ in range(180):
            file.write(np.tile(NOISE, 20))
    wav()
    most = {}
    for name, start in (("a.wav", 0.0), ("long.wav", 10790.0)):
        table(audio=name, start=start, end=start + 1)
        words = [sys.executable, "-c", PEAK.format(name)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        most[name] = int(done.stdout.split("\n")[-2])  # kB
    assert most["long.wav"] < most["a.wav"] + 100_000
