"""Waveform augmentation: what is drawn is what is heard, and nothing else is random."""

import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spk.common.errors import InputError
from spk.finetune.config import FinetuneConfig
from spk.finetune.data.augment import (
    Augmenter,
    Clip,
    add_noise,
    change_speed,
    coloured_noise,
    draw_channel,
    recorded_noise,
    reverberate,
    rng_of,
    simulated_room,
)

RATE = 16000
ROUNDING = 1e-6  # float32, relative to samples of about 1
KINDS = ("speed_prob", "reverb_prob", "noise_prob", "gain_prob")


def speech(count=RATE, seed=3):
    noise = np.random.default_rng(seed).standard_normal(count)
    return (0.1 * noise * (1.2 + np.sin(np.arange(count) / 900))).astype(np.float32)


def sine(frequency, count=2 * RATE):
    return np.sin(2 * np.pi * frequency * np.arange(count) / RATE).astype(np.float32)


def augmented(samples, seed=0, **changes):
    return Augmenter(FinetuneConfig(**changes), RATE)(samples, rng_of(seed, 1, "s"))


def decibels(signal, noise):
    energies = (np.square(part.astype(np.float64)).sum() for part in (signal, noise))
    return 10 * np.log10(next(energies) / next(energies))


def write(path, samples, rate=RATE):
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT" if path.suffix == ".wav" else "PCM_16")
    return str(path.parent)


def slope(noise, low, high):
    """Return the exponent of a noise's power over frequency between two frequencies (Hz)."""
    power = np.square(np.abs(np.fft.rfft(noise)))
    frequencies = np.fft.rfftfreq(len(noise), 1 / RATE)
    edges = np.geomspace(low, high, 20)
    inside = [(frequencies >= a) & (frequencies < b) for a, b in pairwise(edges)]
    means = [power[band].mean() for band in inside]
    return np.polyfit(np.log([frequencies[band].mean() for band in inside]), np.log(means), 1)[0]


def reverberation_time(response):
    """Return RT60 (s) by Schroeder's backward integration, from the decay of -5 to -35 dB."""
    left = np.cumsum(np.square(response[::-1].astype(np.float64)))[::-1]
    level = 10 * np.log10(left / left[0])
    decay = (level < -5) & (level > -35)
    return -60 / np.polyfit(np.arange(len(level))[decay] / RATE, level[decay], 1)[0]


def test_without_a_probability_the_samples_come_back_untouched():
    samples = speech()
    augmenter = Augmenter(FinetuneConfig(), RATE)
    assert not augmenter.active
    assert augmenter(samples, rng_of(0, 0, "s")) is samples


@pytest.mark.parametrize("kind", KINDS)
def test_one_probability_makes_it_active_and_certainty_is_always(kind):
    augmenter = Augmenter(FinetuneConfig(**{kind: 1.0}), RATE)
    assert augmenter.active
    samples = speech(2000)
    for index in range(50):
        assert not np.array_equal(augmenter(samples, rng_of(0, 0, f"s{index}")), samples)


def test_a_channel_alone_leaves_the_waveform():
    assert not Augmenter(FinetuneConfig(channel_prob=1.0), RATE).active


@pytest.mark.parametrize("kind", KINDS)
def test_the_probability_is_the_share_of_segments(kind):
    augmenter = Augmenter(FinetuneConfig(**{kind: 0.3}), RATE)
    samples = speech(400)
    changed = [augmenter(samples, rng_of(0, 0, f"s{i}")) is not samples for i in range(600)]
    assert 0.22 < np.mean(changed) < 0.38  # four standard errors of 600 draws


@pytest.mark.parametrize("factor", [0.57, 0.9, 1.1, 1.25])
def test_speed_changes_length_and_frequency_by_its_factor(factor):
    changed = augmented(sine(1000), speed_prob=1.0, speed_factors=str(factor))
    assert len(changed) == int(np.ceil(2 * RATE / factor))
    spectrum = np.abs(np.fft.rfft(changed * np.hanning(len(changed)), 16 * RATE))
    assert spectrum.argmax() / 16 == pytest.approx(1000 * factor, abs=0.125)  # two bins


def test_speed_draws_every_factor_of_the_list():
    lengths = {
        len(augmented(speech(1100), seed, speed_prob=1.0, speed_factors="0.5,1.1,2"))
        for seed in range(40)
    }
    assert lengths == {2200, 1000, 550}


def test_a_factor_too_fine_for_a_filter_counts_to_two_decimals():
    assert len(change_speed(speech(9000), 0.90012345)) == 10000


@pytest.mark.parametrize("color", ["white", "pink", "brown"])
def test_noise_has_the_drawn_ratio_to_the_segment(color):
    samples = speech()
    mixed = augmented(samples, noise_prob=1.0, noise_snr="7.5,7.5", noise_color=color)
    assert decibels(samples, mixed - samples) == pytest.approx(7.5, abs=1e-3)


def test_ratios_fill_their_range():
    samples = speech(1000)
    ratios = []
    for seed in range(200):
        mixed = augmented(samples, seed, noise_prob=1.0, noise_snr="5,20")
        ratios.append(decibels(samples, mixed - samples))
    assert (round(min(ratios)), round(max(ratios))) == (5, 20)
    assert np.mean(ratios) == pytest.approx(12.5, abs=1.2)  # four standard errors


@pytest.mark.parametrize(("color", "exponent"), [("white", 0), ("pink", -1), ("brown", -2)])
def test_the_power_of_coloured_noise_falls_with_frequency(color, exponent):
    noise = coloured_noise(30 * RATE, color, RATE, np.random.default_rng(1))
    assert slope(noise, 50, 7000) == pytest.approx(exponent, abs=0.05)
    assert slope(noise, 1, 18) == pytest.approx(0, abs=0.5)  # few bins: a rough line
    assert noise.mean() == pytest.approx(0, abs=1e-9)


def test_noise_files_give_the_noise(tmp_path):
    loud = np.random.default_rng(5).uniform(-1, 1, 3 * RATE).astype(np.float32)
    folder = write(tmp_path / "noise" / "a.wav", loud)
    samples = speech()
    heard = augmented(samples, noise_prob=1.0, noise_dir=folder) - samples
    places = np.correlate(loud, heard)
    first = places.argmax()
    assert 0 < first < 2 * RATE
    likeness = np.corrcoef(loud[first : first + RATE], heard)[0, 1]
    assert likeness == pytest.approx(1, abs=1e-5)


def test_files_and_places_of_noise_vary(tmp_path):
    for frequency in (500, 1000, 2000):
        folder = write(tmp_path / "noise" / f"{frequency}.wav", sine(frequency) + speech(2 * RATE))
    samples = speech(RATE // 10)
    heard = [augmented(samples, i, noise_prob=1.0, noise_dir=folder) - samples for i in range(30)]
    assert {10 * int(np.abs(np.fft.rfft(noise)).argmax()) for noise in heard} == {500, 1000, 2000}
    assert len({noise.tobytes() for noise in heard}) == len(heard)


def test_files_are_chosen_by_name_however_the_folder_lists_them(tmp_path, monkeypatch):
    for index in range(4):
        folder = write(tmp_path / "noise" / f"{index}.wav", speech(seed=index))
    told = {"noise_prob": 1.0, "noise_dir": folder}
    heard = [augmented(speech(), i, **told).tobytes() for i in range(5)]
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda *given: sorted(listed(*given), reverse=True))
    assert heard == [augmented(speech(), i, **told).tobytes() for i in range(5)]


def test_a_short_noise_file_is_repeated(tmp_path):
    folder = write(tmp_path / "noise" / "a.flac", speech(1000))
    samples = speech(3500)
    heard = augmented(samples, noise_prob=1.0, noise_dir=folder, noise_snr="0,0") - samples
    np.testing.assert_allclose(heard[:1000], heard[1000:2000], atol=ROUNDING)
    np.testing.assert_allclose(heard[:500], heard[3000:], atol=ROUNDING)
    assert heard.std() > 0.1
    again = augmented(samples, 1, noise_prob=1.0, noise_dir=folder, noise_snr="0,0") - samples
    assert np.abs(heard[:1000] - again[:1000]).max() > 0.1  # it begins at another place


@pytest.mark.parametrize(("rate", "seconds"), [(8000, 3), (44100, 3), (8000, 0.5)])
def test_noise_of_another_rate_keeps_its_pitch_and_only_the_first_channel(tmp_path, rate, seconds):
    times = np.arange(int(seconds * rate)) / rate
    stereo = np.stack([np.sin(2 * np.pi * f * times) for f in (1000, 300)], axis=1)
    folder = write(tmp_path / "noise" / "a.wav", stereo, rate)
    samples = speech()
    heard = augmented(samples, noise_prob=1.0, noise_dir=folder) - samples
    assert len(heard) == RATE
    spectrum = np.abs(np.fft.rfft(heard))
    assert spectrum.argmax() == 1000
    assert spectrum[300] < 0.01 * spectrum[1000]


@pytest.mark.parametrize(("level", "rate"), [(0.0, RATE), (0.25, RATE), (0.0, 8000), (0.0, 48000)])
def test_silent_noise_and_silent_segments_give_no_nan(tmp_path, level, rate):
    folder = write(tmp_path / "noise" / "a.wav", np.full(3 * RATE, level), rate)
    samples = speech()
    mixed = augmented(samples, noise_prob=1.0, noise_dir=folder)
    np.testing.assert_array_equal(mixed, samples)
    clip = Clip(f"{folder}/a.wav", 3 * RATE, rate)
    np.testing.assert_array_equal(recorded_noise(clip, RATE, RATE, 0.3), np.zeros(RATE))
    nothing = np.zeros(RATE, dtype=np.float32)
    silent = augmented(nothing, **dict.fromkeys(KINDS, 1.0), speed_factors="0.8")
    np.testing.assert_array_equal(silent, np.zeros(RATE * 10 // 8))


def test_noise_barely_above_silence_is_brought_to_its_ratio():
    faint = 1e-30 * speech(seed=8)
    samples = speech()
    assert decibels(samples, add_noise(samples, faint, 3.0) - samples) == pytest.approx(3, abs=1e-6)


@pytest.mark.parametrize("seconds", [0.2, 0.5, 0.8])
def test_a_simulated_room_has_its_reverberation_time(seconds):
    click = np.zeros(2 * RATE, dtype=np.float32)
    click[0] = 1
    heard = augmented(click, reverb_prob=1.0, reverb_seconds=f"{seconds},{seconds}")
    assert reverberation_time(heard[: int(0.99 * seconds * RATE)]) == pytest.approx(
        seconds, rel=0.1
    )
    assert np.abs(heard[int(seconds * RATE) + 1 :]).max() < ROUNDING
    assert np.abs(heard[int(0.95 * seconds * RATE) :]).max() > 5 * ROUNDING  # it lasts for RT60
    assert np.abs(heard).argmax() == 0


def test_direct_path_and_tail_carry_the_same_energy():
    rng = np.random.default_rng(2)
    tails = [np.square(simulated_room(0.5, RATE, rng)[1:]).sum() for _ in range(20)]
    assert simulated_room(0.5, RATE, rng)[0] == 1
    assert np.mean(tails) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("measured", [False, True])
def test_reverberation_keeps_length_and_level(tmp_path, measured):
    folder = None
    if measured:
        folder = write(tmp_path / "rooms" / "a.wav", speech(4000) * np.exp(-np.arange(4000) / 500))
    samples = speech()
    heard = augmented(samples, reverb_prob=1.0, reverb_dir=folder)
    assert len(heard) == len(samples)
    assert decibels(heard, samples) == pytest.approx(0, abs=1e-4)
    assert np.abs(heard - samples).max() > 0.01


def test_a_measured_room_begins_at_its_peak_and_is_convolved(tmp_path):
    response = np.zeros(900)
    response[[100, 400, 700]] = [0.1, -0.8, 0.4]  # before the peak, the peak, an echo after 300
    folder = write(tmp_path / "rooms" / "a.wav", np.stack([response, response[::-1]], axis=1))
    samples = speech(4000)
    expected = -0.8 * samples
    expected[300:] += 0.4 * samples[:-300]
    expected *= np.linalg.norm(samples) / np.linalg.norm(expected)
    heard = augmented(samples, reverb_prob=1.0, reverb_dir=folder)
    np.testing.assert_allclose(heard, expected, atol=ROUNDING)


def test_every_measured_room_is_chosen(tmp_path):
    click = speech(400) * 0
    click[0] = 1
    for index in range(1, 4):
        folder = write(tmp_path / "rooms" / f"{index}.wav", np.eye(400)[0] - np.eye(400)[index] / 2)
    heard = [augmented(click, i, reverb_prob=1.0, reverb_dir=folder) for i in range(30)]
    assert {int(response.argmin()) for response in heard} == {1, 2, 3}


def test_convolution_is_that_of_numpy():
    samples, response = speech(900), speech(300, seed=9)
    plain = np.convolve(samples.astype(np.float64), response)[:900]
    plain *= np.linalg.norm(samples) / np.linalg.norm(plain)
    np.testing.assert_allclose(reverberate(samples, response), plain, atol=ROUNDING)


def test_a_silent_impulse_response_is_refused(tmp_path):
    folder = write(tmp_path / "rooms" / "a.wav", np.zeros(500))
    with pytest.raises(InputError, match=r"a\.wav: all 500 samples are equal.*from --reverb-dir"):
        augmented(speech(), reverb_prob=1.0, reverb_dir=folder)


@pytest.mark.parametrize(("gain", "factor"), [("6,6", 1.9952623), ("-20,-20", 0.1), ("0,0", 1)])
def test_gain_is_exact(gain, factor):
    samples = speech()
    louder = augmented(samples, gain_prob=1.0, gain_db=gain)
    np.testing.assert_allclose(louder, samples * factor, rtol=ROUNDING)


def test_the_order_is_speed_reverberation_noise_gain():
    everything = {**dict.fromkeys(KINDS, 1.0), "gain_db": "-6,-6", "noise_snr": "10,10"}
    samples = speech()
    clean = augmented(samples, **{**everything, "noise_prob": 0.0})
    noisy = augmented(samples, **everything)
    assert decibels(clean, noisy - clean) == pytest.approx(10, abs=1e-3)  # noise after the room
    faster = augmented(samples, speed_prob=1.0)
    assert decibels(clean, faster) == pytest.approx(-6, abs=1e-3)  # gain after the room's level


def test_no_kind_depends_on_whether_another_applies():
    samples = speech()
    factor = augmented(samples, gain_prob=1.0)[0] / samples[0]
    assert factor != 1
    for kind in KINDS[:3]:
        alone = augmented(samples, **{kind: 1.0})
        both = augmented(samples, gain_prob=1.0, **{kind: 1.0})
        np.testing.assert_allclose(both, alone * factor, atol=ROUNDING)
    noise = augmented(samples, noise_prob=1.0, noise_snr="9,9") - samples
    room = augmented(samples, reverb_prob=1.0)
    both = augmented(samples, reverb_prob=1.0, noise_prob=1.0, noise_snr="9,9")
    np.testing.assert_allclose(both - room, noise, atol=ROUNDING)


def test_a_higher_probability_keeps_what_applied_before():
    samples = speech(400)
    few, many = (Augmenter(FinetuneConfig(noise_prob=share), RATE) for share in (0.3, 0.6))
    for index in range(100):
        changed = few(samples, rng_of(0, 0, f"s{index}"))
        if changed is not samples:
            np.testing.assert_array_equal(changed, many(samples, rng_of(0, 0, f"s{index}")))


def everything(samples, seed=0, **changes):
    return augmented(samples, seed, **{**dict.fromkeys(KINDS, 1.0), **changes})


CODE = """
import sys, hashlib, importlib.util
spec = importlib.util.spec_from_file_location("here", sys.argv[1])
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
print(hashlib.sha256(here.everything(here.speech()).tobytes()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", ["1", "2"])
def test_the_same_seed_gives_the_same_bytes_in_another_process(number):
    samples = everything(speech())
    assert samples.tobytes() == everything(speech()).tobytes()
    done = subprocess.run(
        [sys.executable, "-c", CODE, __file__],
        env={**os.environ, "PYTHONHASHSEED": number, "OMP_NUM_THREADS": number},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == hashlib.sha256(samples.tobytes()).hexdigest()


def test_seed_epoch_and_segment_each_change_what_is_drawn():
    arguments = [(1, 2, "3"), (2, 2, "3"), (1, 3, "3"), (1, 2, "4"), (12, 3, ""), (1, 23, "")]
    first = [rng_of(*given).integers(2**62) for given in arguments]
    assert len({*first}) == len(arguments)
    assert first == [rng_of(*given).integers(2**62) for given in arguments]


def test_the_generator_is_the_same_on_every_machine():
    assert rng_of(0, 1, "s").integers(2**62) == 1713133491453637621  # numpy 2.4


@pytest.mark.parametrize("color", ["white", "pink", "brown"])
def test_short_segments_come_out_finite_in_float32_and_contiguous(color):
    for seed in range(20):
        heard = everything(speech(400), seed, noise_color=color)
        assert heard.dtype == np.float32
        assert heard.flags.c_contiguous
        assert np.isfinite(heard).all()
        assert len(heard) in (364, 445)  # ceil(400 / 1.1), ceil(400 / 0.9)


def test_the_given_samples_stay_as_they_are():
    samples = speech()
    samples.flags.writeable = False
    everything(samples)
    np.testing.assert_array_equal(samples, speech())


def test_a_channel_is_drawn_with_its_probability_and_evenly():
    assert {draw_channel(FinetuneConfig(), 8, rng_of(0, 0, str(i))) for i in range(50)} == {None}
    always = FinetuneConfig(channel_prob=1.0)
    drawn = [draw_channel(always, 4, rng_of(0, 0, str(i))) for i in range(400)]
    assert {*drawn} == {"0", "1", "2", "3"}
    assert min(drawn.count(channel) for channel in "0123") > 65  # four standard deviations
    half = [
        draw_channel(FinetuneConfig(channel_prob=0.5), 4, rng_of(0, 0, str(i))) for i in range(400)
    ]
    assert 160 < half.count(None) < 240


def test_drawing_a_channel_leaves_the_waveform_s_draws():
    augmenter = Augmenter(FinetuneConfig(**dict.fromkeys(KINDS, 1.0)), RATE)
    first, second = rng_of(0, 0, "s"), rng_of(0, 0, "s")
    draw_channel(FinetuneConfig(channel_prob=1.0), 8, first)
    assert augmenter(speech(), first).tobytes() == augmenter(speech(), second).tobytes()
    draw_channel(FinetuneConfig(), 3, second)
    assert first.random() == second.random()


@pytest.mark.parametrize("option", ["noise_dir", "reverb_dir"])
def test_folders_that_are_missing_or_hold_no_audio_are_refused(tmp_path, option):
    told, chance = f"--{option.replace('_', '-')}", {option.replace("dir", "prob"): 1.0}
    (tmp_path / "notes.txt").write_text("no audio")
    with pytest.raises(
        InputError, match=rf"^{told}: '.*absent' is not a folder, expected one that"
    ):
        Augmenter(FinetuneConfig(**chance, **{option: tmp_path / "absent"}), RATE)
    with pytest.raises(InputError, match=rf"^{told}: audio files in '.*' are 0, expected \.wav or"):
        Augmenter(FinetuneConfig(**chance, **{option: tmp_path}), RATE)
    (tmp_path / "b.wav").write_text("no audio")
    with pytest.raises(InputError, match=rf"b\.wav: cannot be read .*, or remove .* from {told}"):
        Augmenter(FinetuneConfig(**chance, **{option: tmp_path}), RATE)
    write(tmp_path / "b.wav", np.zeros(0))
    with pytest.raises(InputError, match=rf"b\.wav: samples are 0, expected .* from {told}"):
        Augmenter(FinetuneConfig(**chance, **{option: tmp_path}), RATE)


def test_a_noise_file_with_values_that_are_no_numbers_is_told(tmp_path):
    folder = write(tmp_path / "noise" / "a.wav", np.full(RATE, np.nan))
    with pytest.raises(
        InputError, match=r"a\.wav: samples from .* refused \(16000 samples are not"
    ):
        augmented(speech(), noise_prob=1.0, noise_dir=folder)


@pytest.mark.parametrize("kind", ["speed_prob", "noise_prob"])
def test_a_torchaudio_that_is_not_there_is_told_at_the_start(monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(InputError, match=r"torchaudio: is not installed, .*spk-toolkit\[finetune"):
        Augmenter(FinetuneConfig(**{kind: 1.0}), RATE)
    others = Augmenter(FinetuneConfig(gain_prob=1.0, reverb_prob=1.0), RATE)  # which need none
    assert others(speech(), rng_of(0, 0, "s")).shape == speech().shape
