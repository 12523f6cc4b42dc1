"""The packed voices on the device: every speaker at several speeds, crops drawn by index."""

import csv
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import sound
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

SPEEDS = ((1, 1), (5, 6), (10, 11), (11, 10), (6, 5))  # new and old rate; the first is as recorded
HOP, WINDOW = 25600, 25600  # samples, of the teacher


def _read(paths):
    """Return the int16 samples of each file."""
    with ThreadPoolExecutor(max(1, min(16, os.cpu_count() or 1))) as pool:
        return list(pool.map(lambda path: soundfile.read(path, dtype="int16")[0], paths))


def save_tensors(tensors, path):
    """Write tensors as one file of the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    save_file(tensors, part)
    part.replace(path)


class Voices:
    """Speech of all speakers on the device.

    A stream is a speaker at a speed: stream = speed number x speakers + speaker number. A speaker
    at another speed counts as another speaker.

    Attributes
    ----------
    rows
        One dict per speaker, of speakers.csv.
    audio
        int16 (samples,), all streams in a row.
    first, length
        (streams,) int64: place and number of samples.
    training
        (streams,) bool.
    """

    def __init__(self, folder, device, limit=0, speeds=SPEEDS, cache=None):
        with open(folder / "speakers.csv", newline="") as lines:
            rows = list(csv.DictReader(lines))
        if limit:  # for a rehearsal
            rows = rows[:: max(1, len(rows) // limit)]
        self.rows, self.device = rows, device
        waves = _read([folder / row["file"] for row in rows])
        count = np.array([len(wave) for wave in waves])
        ends = [np.cumsum(count) * old // new for new, old in speeds]
        lengths = [np.diff(end, prepend=0) for end in ends]
        self.audio, sizes = self._at_speeds(np.concatenate(waves), speeds, cache)
        offsets = np.cumsum([0, *sizes])[:-1]
        first = [o + np.cumsum(n) - n for o, n in zip(offsets, lengths, strict=True)]
        self.first = torch.from_numpy(np.concatenate(first)).to(device)
        self.length = torch.from_numpy(np.concatenate(lengths)).to(device)
        held_out = torch.tensor([r["held_out"] == "1" for r in rows])
        self.training = ~held_out.to(device).repeat(len(speeds)) & (self.length >= 24000)
        self.held_out = [i for i, r in enumerate(rows) if r["held_out"] == "1"]

    def _at_speeds(self, whole, speeds, cache):
        """Return all speech at all speeds in a row, and the samples of each speed."""
        key = hashlib.sha256(whole.tobytes() + repr(speeds).encode()).hexdigest()[:16]
        path = cache and cache / f"speeds-{key}.safetensors"
        if path and path.exists():
            parts = load_file(path)
            return parts["audio"].to(self.device), parts["sizes"].tolist()
        wave = torch.from_numpy(whole).to(self.device)
        parts = []
        for new, old in speeds:
            # slower is longer: a recording at `old` read as if at `new`
            other = wave if new == old else sound.resample(wave.float(), new, old)
            parts.append(other.round().clamp(-32768, 32767).to(torch.int16))
        sizes, audio = [len(part) for part in parts], torch.cat(parts)
        if path:
            save_tensors({"audio": audio.cpu(), "sizes": torch.tensor(sizes)}, path)
        return audio, sizes

    def streams(self):
        """Return numbers of the training streams (n,)."""
        return torch.nonzero(self.training)[:, 0]

    def cut(self, stream, start, samples):
        """Return (rows, samples) float32 from `start` of each stream, going round at its end."""
        if self.device.type == "cpu":
            return self._cut_in_turn(stream.tolist(), start.tolist(), samples)
        place = start[:, None] + torch.arange(samples, device=self.device)
        place = torch.remainder(place, self.length[stream][:, None])
        return self.audio[self.first[stream][:, None] + place].float() / 32768

    def _cut_in_turn(self, stream, start, samples):
        """Do what `cut` does, a row after the other: on a CPU ten times as fast."""
        waves = torch.empty(len(stream), samples, dtype=torch.int16)
        for wave, number, begin in zip(waves, stream, start, strict=True):
            first, length = int(self.first[number]), int(self.length[number])
            place = 0
            begin %= length
            while place < samples:
                part = self.audio[first + begin : first + min(length, begin + samples - place)]
                wave[place : place + len(part)] = part
                place, begin = place + len(part), 0
        return waves.float() / 32768


class Crops:
    """Draw training crops: waves, class of each and the teacher's vector."""

    def __init__(self, voices, teacher, generator, hop=HOP, cache=None):
        self.voices, self.generator, self.hop, self.cache = voices, generator, hop, cache
        self.banks = {}  # of scenes, by length and strength: trials share them
        self.stream = voices.streams()
        weight = voices.length[self.stream].double().sqrt()
        self.edges = torch.cumsum(weight / weight.sum(), 0).float()
        self.classes = len(self.stream)
        self._teach(teacher)

    def _teach(self, teacher):
        """Compute what the teacher says of every window of every stream."""
        voices = self.voices
        windows = ((voices.length[self.stream] - WINDOW) // self.hop + 1).clamp(min=1)
        self.last = windows - 1
        self.base = torch.cumsum(windows, 0) - windows
        owner = torch.repeat_interleave(torch.arange(self.classes, device=voices.device), windows)
        number = torch.arange(len(owner), device=voices.device) - self.base[owner]
        said = self._say(teacher, owner, number)
        said = torch.nan_to_num(said)
        mean = torch.zeros(self.classes, said.shape[1], device=voices.device)
        mean.index_add_(0, owner, said)
        mean = mean / windows[:, None]
        centre = mean.mean(0)
        self.centre = centre
        said, mean = said - centre, functional.normalize(mean - centre)
        before = self.base[owner] + (number - 1).clamp(min=0)
        after = self.base[owner] + torch.minimum(number + 1, self.last[owner])
        near = functional.normalize(said + 0.5 * said[before] + 0.5 * said[after])
        self.said = functional.normalize(near + mean[owner])

    def _say(self, teacher, owner, number):
        """Return the teacher's vectors (windows, 256) of all windows, from the cache if there."""
        voices = self.voices
        key = hashlib.sha256(repr((self.hop, [r["file"] for r in voices.rows])).encode())
        key.update(self.stream.cpu().numpy().tobytes() + voices.length.cpu().numpy().tobytes())
        path = self.cache and self.cache / f"teacher-{key.hexdigest()[:16]}.safetensors"
        if path and path.exists():
            return load_file(path)["said"].to(voices.device).float()
        said = []
        for rows in torch.arange(len(owner), device=voices.device).split(1024):
            waves = voices.cut(self.stream[owner[rows]], number[rows] * self.hop, WINDOW)
            said.append(teacher(waves))
        said = torch.cat(said)
        if path:
            save_tensors({"said": said.half().cpu()}, path)
        return said

    def draw(self, rows, samples):
        """Return waves (rows, samples), classes (rows,) and vectors (rows, 256)."""
        device = self.voices.device
        draw = torch.rand(2, rows, generator=self.generator, device=device)
        label = torch.searchsorted(self.edges, draw[0]).clamp(max=self.classes - 1)
        stream = self.stream[label]
        room = (self.voices.length[stream] - samples).clamp(min=1)
        start = (draw[1] * room).long()
        middle = start + samples // 2 - WINDOW // 2
        window = ((middle + self.hop // 2) // self.hop).clamp(min=0)
        window = self.base[label] + torch.minimum(window, self.last[label])
        return self.voices.cut(stream, start, samples), label, self.said[window]
