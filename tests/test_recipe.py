"""The recipe of the encoder that ships computes what its comments say."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "small_encoder"
SAME = 1e-5  # relative, of float32


@pytest.fixture(scope="module")
def recipe():
    """Return the recipe's modules; the names are taken back after these tests."""
    before = set(sys.modules)
    sys.path.insert(0, str(RECIPE))
    try:
        import sound
        import student
        import voices

        yield {"sound": sound, "student": student, "voices": voices}
    finally:
        sys.path.remove(str(RECIPE))
        for name in {"sound", "student", "voices"} - before:
            sys.modules.pop(name, None)


def test_states_in_training_are_those_of_transformers(recipe):
    torch.manual_seed(0)
    encoder = recipe["student"].make_wave_encoder(width=32, inner=48, layers=2).eval()
    waves = torch.randn(2, 8000)
    waves = (waves - waves.mean(1, keepdim=True)) / waves.std(1, correction=0, keepdim=True)
    with torch.no_grad():
        theirs = encoder(waves, output_hidden_states=True)
        ours = recipe["student"].states(encoder, 0.3 * waves)  # normalised as the extractor does
    for mine, state in zip(
        ours, [*theirs.hidden_states[:-1], theirs.last_hidden_state], strict=True
    ):
        assert (mine - state).abs().max() < SAME * 10 * state.abs().max()


def test_a_filter_answers_to_its_band_whatever_the_phase(recipe):
    encoder = recipe["student"].make_wave_encoder(width=32, inner=48, layers=1)
    weight = encoder.feature_extractor.conv_layers[0].conv.weight.detach()[:, 0]
    phases, bands = recipe["student"].PHASES, len(weight) // recipe["student"].PHASES
    time = torch.arange(400) / 16000
    sums = []
    for phase in np.linspace(0, 2 * np.pi, 12):
        answer = (weight @ torch.cos(2 * np.pi * 1000 * time + phase)).clamp(min=0)
        sums.append(answer.view(phases, bands).sum(0))
    sums = torch.stack(sums)
    assert len(set(sums.argmax(1).tolist())) == 1
    best = sums[:, sums[0].argmax()]
    assert best.max() / best.min() < 1.2


def test_crops_cut_in_turn_are_those_cut_at_once(recipe):
    voices = object.__new__(recipe["voices"].Voices)
    voices.device = torch.device("cpu")
    voices.audio = torch.arange(1000, dtype=torch.int16)
    voices.first, voices.length = torch.tensor([0, 300, 450]), torch.tensor([300, 150, 550])
    stream, start = torch.tensor([2, 1, 0, 1]), torch.tensor([17, 149, 299, 0])
    place = (start[:, None] + torch.arange(400)) % voices.length[stream][:, None]
    expected = voices.audio[voices.first[stream][:, None] + place].float() / 32768
    assert torch.equal(voices.cut(stream, start, 400), expected)


def test_noise_of_a_scene_has_the_level_that_was_drawn(recipe):
    generator = torch.Generator().manual_seed(0)
    bank = recipe["sound"].SceneBank(16000, 8, generator)
    scene = bank.scene
    bank.room, bank.channel = torch.ones_like(bank.room), torch.ones_like(bank.channel)
    scene.babble[:], scene.snr[:], scene.clip[:], scene.mulaw[:] = 99.0, 10.0, 1.0, False
    time = torch.arange(16000) / 16000
    waves = torch.sin(2 * np.pi * 500 * time).repeat(4, 1)
    spectrum = torch.fft.rfft(bank.augment(waves, generator)).abs().square()
    speech = spectrum[:, 500]
    noise = spectrum.sum(1) - speech
    assert 10 * torch.log10(speech / noise).numpy() == pytest.approx(np.full(4, 10.0), abs=0.2)
