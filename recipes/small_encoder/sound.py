"""Sound on the device, a batch at a time: resampling, augmentation, log-mel features.

Everything takes and gives tensors (rows, samples) float32 of equal lengths, in units where full
scale is 1, and draws from the generator it is given.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

RATE = 16000
ROOM = 9600  # samples of a room's response
KNOTS = 12  # of a microphone's frequency response


# --- log-mel, as transformers' SeamlessM4TFeatureExtractor computes it -------------------------


class LogMel:
    """Normalised log-mel features (rows, frames, 80 x stride)."""

    WINDOW, HOP, TRANSFORM = 400, 160, 512

    def __init__(self, stride, device):
        from transformers import SeamlessM4TFeatureExtractor

        self.extractor = SeamlessM4TFeatureExtractor(
            feature_size=80, num_mel_bins=80, sampling_rate=RATE, stride=stride
        )
        self.stride = stride
        self.window = torch.tensor(self.extractor.window, dtype=torch.float32, device=device)
        self.filters = torch.tensor(self.extractor.mel_filters, dtype=torch.float32, device=device)

    def mels(self, waves):
        """Return log-mel frames (rows, windows, 80)."""
        frames = (waves * 32768).unfold(1, self.WINDOW, self.HOP)
        frames = frames - frames.mean(2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        frames = (frames - 0.97 * before) * self.window
        spectrum = torch.fft.rfft(frames, n=self.TRANSFORM)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ self.filters).clamp(min=1.192092955078125e-07).log()

    def __call__(self, waves, mask=None):
        """Return features; `mask` (a function of normalised mels) may hide some of them."""
        mels = self.mels(waves)
        mels = mels - mels.mean(1, keepdim=True)
        mels = mels / (mels.var(1, keepdim=True) + 1e-7).sqrt()
        if mask is not None:
            mels = mask(mels)
        whole = mels.shape[1] // self.stride
        return mels[:, : whole * self.stride].unflatten(1, (whole, self.stride)).flatten(2)


def hide(mels, generator, share=0.5, bands=10, frames=0.12):
    """Set a band of mels and a span of frames to 0 (their mean) in a share of the rows."""
    rows, length, width = mels.shape
    draw = torch.rand(6, rows, 1, generator=generator, device=mels.device)
    place = torch.arange(width, device=mels.device)
    wide = draw[0] * bands * (draw[1] < share)
    low = draw[2] * (width - wide)
    band = (place >= low) & (place < low + wide)
    place = torch.arange(length, device=mels.device)
    wide = draw[3] * frames * length * (draw[4] < share)
    low = draw[5] * (length - wide)
    span = (place >= low) & (place < low + wide)
    return mels.masked_fill(band[:, None, :] | span[:, :, None], 0.0)


# --- speed ------------------------------------------------------------------------------------


def resample(wave, old, new, zeros=16):
    """Change the rate of one wave (n,) float32 by new/old, a ratio of small whole numbers."""
    if old == new:
        return wave
    base = min(old, new) * 0.97
    width = math.ceil(zeros * old / base)
    taps = torch.arange(-width, width + old, dtype=torch.float64)[None] / old
    steps = torch.arange(0, -new, -1, dtype=torch.float64)[:, None] / new
    t = ((taps + steps) * base).clamp(-zeros, zeros)
    kernel = torch.sinc(t) * torch.cos(t * math.pi / zeros / 2).square() * base / old
    kernel = kernel.float().to(wave.device)[:, None, :]
    out = []
    block = old * 200_000
    padded = functional.pad(wave[None], (width, width + old))[0]
    for start in range(0, len(wave), block):
        piece = padded[start : start + block + 2 * width]
        if len(piece) < kernel.shape[2]:
            break
        made = functional.conv1d(piece[None, None], kernel, stride=old)[0]
        out.append(made.t().reshape(-1))
    whole = torch.cat(out)
    return whole[: math.ceil(len(wave) * new / old)]


# --- augmentation -----------------------------------------------------------------------------


@dataclass
class Scene:
    """How rows sound: numbers (rows,) unless said otherwise. A large SNR means no noise."""

    room: torch.Tensor  # (rows, ROOM) impulse responses
    response: torch.Tensor  # (rows, KNOTS) dB of the microphone, over frequency
    low: torch.Tensor  # Hz below which the channel passes nothing
    high: torch.Tensor  # Hz above which it passes nothing
    snr: torch.Tensor  # dB of speech over stationary noise
    slope: torch.Tensor  # of the noise's spectrum: 0 white, 1 pink, 2 brown
    babble: torch.Tensor  # dB of speech over other voices
    voices: torch.Tensor  # how many other voices, 1 to 4
    mulaw: torch.Tensor  # bool: 8-bit mu-law
    clip: torch.Tensor  # share of the peak that is left over; 1 clips nothing

    def rows(self, index):
        """Return the scenes of some rows."""
        return Scene(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def draw_scenes(rows, device, generator, strength=1.0):
    """Draw how rows sound; `strength` scales the shares of rows that are treated."""

    def uniform(low, high, *shape):
        draw = torch.rand(rows, *shape, generator=generator, device=device)
        return low + (high - low) * draw

    def chance(share):
        return uniform(0, 1) < share * strength

    none = torch.full((rows,), 99.0, device=device)
    quiet = uniform(0, 1) < 0.1  # rows without any noise
    telephone = chance(0.1)
    dull = chance(0.3)
    low = torch.where(chance(0.3), uniform(50, 250), torch.zeros_like(none))
    high = torch.where(dull, uniform(3000, 7500), torch.full_like(none, 9000.0))
    knots = torch.randn(rows, KNOTS, generator=generator, device=device) * uniform(1, 6, 1)
    tilt = uniform(-8, 8, 1) * torch.linspace(-1, 1, KNOTS, device=device)
    return Scene(
        room=draw_rooms(rows, device, generator, share=0.65 * strength),
        response=(knots + tilt) * chance(0.75)[:, None],
        low=torch.where(telephone, torch.full_like(low, 300.0), low),
        high=torch.where(telephone, torch.full_like(high, 3400.0), high),
        snr=torch.where(~quiet & chance(0.8), uniform(4, 28), none),
        slope=uniform(0, 2.2),
        babble=torch.where(~quiet & chance(0.45), uniform(5, 25), none),
        voices=torch.floor(uniform(1, 4.999)),
        mulaw=chance(0.12),
        clip=torch.where(chance(0.06), uniform(0.3, 0.9), torch.ones_like(none)),
    )


def draw_rooms(rows, device, generator, share):
    """Draw impulse responses (rows, ROOM): a direct sound, and noise that dies away behind it."""
    draw = torch.rand(5, rows, 1, generator=generator, device=device)
    time = torch.arange(ROOM, device=device) / RATE
    decay = 0.1 + 0.8 * draw[0]  # s until 60 dB less
    noise = torch.randn(2, rows, ROOM, generator=generator, device=device)
    dull = (noise[1] + noise[1].roll(1, 1) + noise[1].roll(2, 1)) * torch.exp(-6.9 * time / decay)
    bright = noise[0] * torch.exp(-6.9 * time / (decay * (0.3 + 0.6 * draw[1])))
    tail = (dull + bright) * (time > 0.002 + 0.02 * draw[2])
    tail = tail / tail.square().sum(1, keepdim=True).clamp(min=1e-9).sqrt()
    ratio = -3 + 18 * draw[3]  # dB of direct sound over the rest
    tail = tail * 10 ** (-ratio / 20) * (draw[4] < share)
    tail[:, 0] = 1.0
    return tail


def one_scene_without(scene, **changes):
    """Return a scene with some of its numbers changed."""
    return replace(scene, **changes)


def augment(waves, scene, generator):
    """Put waves (rows, samples) into their scenes.

    The other voices are other rows of the batch. All of it but clipping and mu-law happens in
    the frequency domain over the crop's own length, so a room's tail wraps round to the start:
    as if the sound had gone on before.
    """
    rows, length = waves.shape
    spectrum = torch.fft.rfft(waves)
    spectrum = spectrum * torch.fft.rfft(scene.room, n=length)
    bins = spectrum.shape[1]
    power = _power(spectrum)

    others = torch.zeros_like(spectrum)
    unit = spectrum / power.sqrt()[:, None]
    for k in range(1, 5):
        others = others + unit.roll(3 * k, 0) * (scene.voices >= k)[:, None]
    level = (power / _power(others)).sqrt() * 10 ** (-scene.babble / 20)
    mixed = spectrum + others * level[:, None]

    noise = torch.view_as_complex(
        torch.randn(rows, bins, 2, generator=generator, device=waves.device)
    )
    hertz = torch.linspace(0, RATE / 2, bins, device=waves.device)
    noise = noise * (hertz.clamp(min=60) / 1000)[None] ** (-scene.slope[:, None] / 2)
    level = (power / _power(noise)).sqrt() * 10 ** (-scene.snr / 20)
    mixed = mixed + noise * level[:, None]

    mixed = mixed * _channel(scene, hertz)
    out = torch.fft.irfft(mixed, n=length)
    peak = out.abs().amax(1, keepdim=True).clamp(min=1e-6)
    out = out / peak
    limit = scene.clip[:, None]
    out = torch.minimum(torch.maximum(out, -limit), limit)
    return 0.5 * torch.where(scene.mulaw[:, None], _mulaw(out), out)


class SceneBank:
    """Scenes drawn beforehand for crops of one length: what a CPU can afford in every step.

    `draw_scenes` and `augment` cost as much as the encoder's own step. Here rooms, microphones and
    noises lie ready as spectra; a step draws among them, and levels and other voices anew.
    """

    def __init__(self, length, count, generator, strength=1.0):
        self.length, self.count, self.strength = length, count, strength
        self.scene = draw_scenes(count, torch.device("cpu"), generator, strength)
        bins = length // 2 + 1
        hertz = torch.linspace(0, RATE / 2, bins)
        self.room = torch.fft.rfft(self.scene.room, n=length)
        self.scene.room = self.scene.room[:, :1]  # no longer needed
        self.channel = _channel(self.scene, hertz)
        noise = torch.view_as_complex(torch.randn(count, bins, 2, generator=generator))
        noise = noise * (hertz.clamp(min=60) / 1000)[None] ** (-self.scene.slope[:, None] / 2)
        self.noise = noise / _power(noise).sqrt()[:, None]

    def augment(self, waves, generator):
        """Put waves (rows, length) into scenes drawn from the bank, as `augment` does."""
        rows = len(waves)
        room, channel, noise = (
            torch.randint(self.count, (rows,), generator=generator) for _ in range(3)
        )
        scene = self.scene
        spectrum = torch.fft.rfft(waves) * self.room[room]
        power = _power(spectrum)
        babble = 10 ** (-scene.babble[noise] / 20)
        for k in (1, 2):  # babble of two voices; of one where the draw says so
            share = babble / (1.0 if k == 1 else 1.4) * (scene.voices[noise] >= k)
            loud = torch.nonzero(share > 1e-3)[:, 0]
            if k == 1:
                mixed = spectrum.clone()
            other = (loud + 3 * k) % rows
            level = share[loud] * (power[loud] / power[other]).sqrt()
            mixed[loud] += spectrum[other] * level[:, None]
        level = power.sqrt() * 10 ** (-scene.snr[noise] / 20)
        mixed += self.noise[noise] * level[:, None]
        out = torch.fft.irfft(mixed * self.channel[channel], n=self.length)
        out = out / out.abs().amax(1, keepdim=True).clamp(min=1e-6)
        limit = scene.clip[channel]
        cut = torch.nonzero(limit < 1)[:, 0]
        out[cut] = torch.minimum(torch.maximum(out[cut], -limit[cut, None]), limit[cut, None])
        coded = torch.nonzero(scene.mulaw[channel])[:, 0]
        out[coded] = _mulaw(out[coded])
        return 0.5 * out


def _mulaw(waves):
    """Return waves as 8-bit mu-law would give them back."""
    coded = torch.sign(waves) * torch.log1p(255 * waves.abs()) / math.log(256)
    coded = torch.round(coded * 127) / 127
    return torch.sign(coded) * (256 ** coded.abs() - 1) / 255


def _power(spectrum):
    """Return each row's mean power (rows,)."""
    return (spectrum.real.square() + spectrum.imag.square()).mean(1).clamp(min=1e-12)


def _channel(scene, hertz):
    """Return the gain (rows, bins) of a microphone's response and of the pass band."""
    place = (hertz / 8000).sqrt() * (KNOTS - 1)
    left = place.floor().clamp(max=KNOTS - 2).long()
    share = place - left
    decibel = scene.response[:, left] * (1 - share) + scene.response[:, left + 1] * share
    up = torch.sigmoid((hertz[None] - scene.low[:, None]) / 20.0)
    up = torch.where(scene.low[:, None] > 0, up, torch.ones_like(up))
    down = torch.sigmoid((scene.high[:, None] - hertz[None]) / 60.0)
    return 10 ** (decibel / 20) * up * down


def pause(waves, generator, share=0.15):
    """Silence a span of 0.15 to 0.5 s in a share of the rows."""
    rows, length = waves.shape
    draw = torch.rand(3, rows, 1, generator=generator, device=waves.device)
    wide = (0.15 + 0.35 * draw[0]) * RATE * (draw[1] < share)
    start = draw[2] * (length - wide)
    place = torch.arange(length, device=waves.device)
    return waves.masked_fill((place >= start) & (place < start + wide), 0.0)


# --- the teacher ------------------------------------------------------------------------------


class Teacher:
    """GE2E (Resemblyzer's weights) on the device: waves (rows, samples) to vectors (rows, 256)."""

    def __init__(self, path, device):
        from safetensors.torch import load_file

        state = load_file(str(path))
        self.lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = torch.nn.Linear(256, 256)
        self.lstm.load_state_dict(
            {k[5:]: v.float() for k, v in state.items() if k.startswith("lstm.")}
        )
        self.linear.load_state_dict(
            {k[7:]: v.float() for k, v in state.items() if k.startswith("linear.")}
        )
        self.lstm.eval().requires_grad_(False).to(device).flatten_parameters()
        self.linear.requires_grad_(False).to(device)
        self.window = torch.hann_window(400, device=device)
        self.filters = torch.tensor(slaney_filters(40, 400), dtype=torch.float32, device=device)

    def mels(self, waves):
        """Return librosa's mel power (rows, frames, 40): centred frames, Slaney's bands."""
        padded = functional.pad(waves, (200, 200))
        frames = padded.unfold(1, 400, 160) * self.window
        spectrum = torch.fft.rfft(frames, n=400)
        return (spectrum.real.square() + spectrum.imag.square()) @ self.filters

    @torch.no_grad()
    def __call__(self, waves):
        """Return unit vectors; the last, half empty frame is left out, quiet rows are raised."""
        level = waves.square().mean(1, keepdim=True).clamp(min=1e-10).sqrt()
        waves = waves * (10 ** (-30 / 20) / level).clamp(min=1.0)
        mels = self.mels(waves)[:, : waves.shape[1] // 160]
        _, (hidden, _) = self.lstm(mels)
        raw = functional.relu(self.linear(hidden[-1]))
        return functional.normalize(raw, dim=1)


def slaney_filters(bands, size, rate=RATE):
    """Return librosa's default mel filters (size // 2 + 1, bands) with Slaney's norm."""

    def mel(hertz):
        hertz = np.asarray(hertz, float)
        high = 15 + np.log(np.maximum(hertz, 1000) / 1000) / (np.log(6.4) / 27)
        return np.where(hertz < 1000, hertz * 3 / 200, high)

    def hertz(mels):
        return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((np.log(6.4) / 27) * (mels - 15)))

    edges = hertz(np.linspace(mel(0), mel(rate / 2), bands + 2))
    bins = np.linspace(0, rate / 2, size // 2 + 1)
    ramps = edges[:, None] - bins[None]
    widths = np.diff(edges)
    lower = -ramps[:-2] / widths[:-1, None]
    upper = ramps[2:] / widths[1:, None]
    filters = np.maximum(0, np.minimum(lower, upper))
    return (filters * (2 / (edges[2:] - edges[:-2]))[:, None]).T
