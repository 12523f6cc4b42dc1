"""The packed voices on the device: every speaker at several speeds, crops drawn by index."""

import csv
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import sound
import soundfile
import torch
from torch.nn import functional

SPEEDS = ((1, 1), (5, 6), (10, 11), (11, 10), (6, 5))  # new and old rate; the first is as recorded
HOP, WINDOW = 12800, 25600  # samples, of the teacher


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

    def __init__(self, folder, device, limit=0, speeds=SPEEDS):
        with open(folder / "speakers.csv", newline="") as lines:
            rows = list(csv.DictReader(lines))
        if limit:  # for a rehearsal
            rows = rows[:: max(1, len(rows) // limit)]
        self.rows, self.device = rows, device
        threads = max(1, min(16, os.cpu_count() or 1))
        with ThreadPoolExecutor(threads) as pool:
            waves = list(
                pool.map(lambda r: soundfile.read(folder / r["file"], dtype="int16")[0], rows)
            )
        parts, lengths = [], []
        count = np.array([len(wave) for wave in waves])
        whole = torch.from_numpy(np.concatenate(waves)).to(device)
        for new, old in speeds:
            if new == old:
                parts.append(whole)
                lengths.append(torch.from_numpy(count))
                continue
            # slower is longer: a recording at `old` read as if at `new`
            faster = sound.resample(whole.float(), new, old)
            parts.append(faster.round().clamp(-32768, 32767).to(torch.int16))
            ends = np.cumsum(count) * old // new
            lengths.append(torch.from_numpy(np.diff(ends, prepend=0)))
            del faster
        offsets = np.cumsum([0] + [len(p) for p in parts])[:-1]
        first = [int(o) + torch.cumsum(n, 0) - n for o, n in zip(offsets, lengths, strict=True)]
        self.audio = torch.cat(parts)
        self.first = torch.cat(first).to(device)
        self.length = torch.cat(lengths).to(device)
        held_out = torch.tensor([r["held_out"] == "1" for r in rows])
        long = torch.cat(lengths) >= 24000
        self.training = (~held_out.repeat(len(speeds)) & long).to(device)
        self.held_out = [i for i, r in enumerate(rows) if r["held_out"] == "1"]

    def streams(self):
        """Return numbers of the training streams (n,)."""
        return torch.nonzero(self.training)[:, 0]

    def cut(self, stream, start, samples):
        """Return (rows, samples) float32 from `start` of each stream, going round at its end."""
        place = start[:, None] + torch.arange(samples, device=self.device)
        place = torch.remainder(place, self.length[stream][:, None])
        return self.audio[self.first[stream][:, None] + place].float() / 32768


class Crops:
    """Draw training crops: waves, class of each and the teacher's vector."""

    def __init__(self, voices, teacher, generator, hop=HOP):
        self.voices, self.generator, self.hop = voices, generator, hop
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
        said = []
        for rows in torch.arange(len(owner), device=voices.device).split(1024):
            waves = voices.cut(self.stream[owner[rows]], number[rows] * self.hop, WINDOW)
            said.append(teacher(waves))
        said = torch.cat(said)
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
