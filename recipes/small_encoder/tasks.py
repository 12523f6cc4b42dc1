"""What users do, on speakers that training never sees: the numbers that choose.

Meetings: 4 to 8 speakers (and 16 to 24) of one corpus through one microphone, each learnt from
four segments of 2 s.
Rooms: enrolment of 10 s in one room and microphone, tests of 1.5 to 3 s each in another.
"""

import random

import numpy as np
import sound
import torch

CYCLE = (
    "speechocean762",
    "librispeech",
    "speechocean762",
    "librispeech",
    "arabic_speech_commands",
    "dspspeech20",
)
SHRINK = 0.3  # of LDA's covariance
SHARED = ("response", "low", "high", "mulaw", "clip")  # of a microphone


class Tasks:
    """Segments of held-out speakers, in their rooms, and the scores of their features."""

    def __init__(self, voices, meetings=60, background=400, seed=7):
        self.voices = voices
        self.rng = random.Random(seed)
        self.generator = torch.Generator(voices.device).manual_seed(seed)
        self.segments = []  # task, group, speaker, test, start, samples, mic, place
        self.by_corpus = {}
        for i in voices.held_out:
            self.by_corpus.setdefault(voices.rows[i]["corpus"], []).append(i)
        self.seconds = {i: int(voices.length[i]) for i in voices.held_out}
        self._meetings(meetings)
        self._rooms()
        self._background(background)
        self._make()

    def _add(self, task, group, speaker, test, start, samples, mic, place):
        self.segments.append((task, group, speaker, test, start, samples, mic, place))

    def _one(self, task, group, speaker, enrol, tests, mic, place):
        length = self.seconds[speaker]
        cut = int(length * 0.6)
        for k in range(enrol):
            start = int((cut - 32000) * k / max(1, enrol - 1))
            self._add(task, group, speaker, 0, start, 32000, mic, place)
        for samples in tests:
            start = self.rng.randrange(cut, max(cut + 1, length - samples))
            own = None if task == "rooms" else mic
            where = None if task == "rooms" else place
            self._add(task, group, speaker, 1, start, samples, own, where)

    def _meetings(self, count):
        place = 0
        for group in range(count):
            large = group % 10 == 9
            names = self.by_corpus.get(CYCLE[group % len(CYCLE)], [])
            size = self.rng.randint(16, 24) if large else self.rng.randint(4, 8)
            if len(names) < 3:
                continue
            for speaker in self.rng.sample(names, min(size, len(names))):
                self._one("meetings", group, speaker, 4, (24000, 32000, 48000), group, place)
                place += 1

    def _rooms(self):
        for mic, speaker in enumerate(self.voices.held_out):
            tests = (24000, 24000, 32000, 48000)
            self._one("rooms", 0, speaker, 5, tests, 5000 + mic, 5000 + mic)

    def _background(self, count):
        trained = [i for i, r in enumerate(self.voices.rows) if r["held_out"] == "0"]
        for speaker in self.rng.choices(trained, k=count):
            start = self.rng.randrange(0, max(1, int(self.voices.length[speaker]) - 32000))
            self._add("background", 0, speaker, 0, start, 32000, None, None)

    def _scenes(self, rows):
        """Draw scenes; rows of one microphone, or of one place in a room, share what it does."""
        device = self.voices.device
        scene = sound.draw_scenes(len(rows), device, self.generator, 1.0)
        scene.babble = torch.where(scene.babble < 12, scene.babble + 60, scene.babble)
        scene.snr = scene.snr.clamp(min=8)
        leader = {}
        mic = [
            leader.setdefault(("mic", r[6]) if r[6] is not None else i, i)
            for i, r in enumerate(rows)
        ]
        place = [
            leader.setdefault(("place", r[7]) if r[7] is not None else -i - 1, i)
            for i, r in enumerate(rows)
        ]
        mic = torch.tensor(mic, device=device)
        changes = {name: getattr(scene, name)[mic] for name in SHARED}
        changes["room"] = scene.room[torch.tensor(place, device=device)]
        return sound.one_scene_without(scene, **changes)

    def _make(self):
        """Cut and place all segments; waves by length, in the order of `order`."""
        scene = self._scenes(self.segments)
        self.waves, order = [], []
        for samples in sorted({s[5] for s in self.segments}):
            rows = [i for i, s in enumerate(self.segments) if s[5] == samples]
            self.rng.shuffle(rows)
            for start in range(0, len(rows), 256):
                part = rows[start : start + 256]
                index = torch.tensor(part, device=self.voices.device)
                stream = torch.tensor([self.segments[i][2] for i in part], device=index.device)
                begin = torch.tensor([self.segments[i][4] for i in part], device=index.device)
                waves = self.voices.cut(stream, begin, samples)
                self.waves.append(sound.augment(waves, scene.rows(index), self.generator).half())
                order += part
        self.order = np.argsort(order)

    def encode(self, function):
        """Return features of all segments, of a function of waves (rows, samples)."""
        made = [function(waves.float()).float().cpu().numpy() for waves in self.waves]
        return np.concatenate(made)[self.order]

    def scores(self, features):
        """Return {name: number} for features (segments, dim)."""
        rows = np.array([(s[1], s[2], s[3]) for s in self.segments])
        task = np.array([s[0] for s in self.segments])
        length = np.array([s[5] for s in self.segments])
        corpus = np.array([self.voices.rows[s[2]]["corpus"] for s in self.segments])
        out = self._meeting_scores(features, rows, task == "meetings", length, corpus)
        back = features[task == "background"]
        mean, std = back.mean(0), back.std(0) + 1e-6
        out.update(
            self._room_scores(features, (features - mean) / std, rows, task == "rooms", corpus)
        )
        out["score"] = float(
            np.mean(
                [
                    out["meeting_centroid"],
                    out["meeting_lda"],
                    out["rooms_centroid"],
                    out["rooms_lda"],
                    1 - out["eer"],
                    1 - out["open_eer"],
                ]
            )
        )
        return {k: round(v, 4) for k, v in out.items()}

    def _meeting_scores(self, features, rows, mine, length, corpus):
        hits = {"centroid": [], "lda": []}
        short, where = [], []
        for group in sorted({int(g) for g in rows[mine, 0]}):
            inside = np.flatnonzero(mine & (rows[:, 0] == group))
            learn, test = inside[rows[inside, 2] == 0], inside[rows[inside, 2] == 1]
            x, y, t = features[learn], rows[learn, 1], rows[test, 1]
            for name, classify in (("centroid", centroid), ("lda", lda)):
                hits[name] += list(classify(x, y, features[test]) == t)
            short += list(length[test] == 24000)
            where += list(corpus[test])
        out = {f"meeting_{k}": float(np.mean(v)) for k, v in hits.items()}
        for name in hits:
            out[f"meeting_{name}_1.5s"] = float(np.mean(np.array(hits[name])[short]))
        for name in sorted(set(where)):
            out[f"meeting_lda_{name[:6]}"] = float(
                np.mean(np.array(hits["lda"])[np.array(where) == name])
            )
        return out

    def _room_scores(self, features, scaled, rows, mine, corpus):
        inside = np.flatnonzero(mine)
        hits = {"centroid": [], "lda": []}
        familiar, strange = [], []
        rng = random.Random(3)
        for name in sorted(set(corpus[inside])):
            speakers = sorted(
                {int(s) for s in rows[inside, 1] if self.voices.rows[s]["corpus"] == name}
            )
            if len(speakers) < 2:
                continue
            for _ in range(12):
                group = rng.sample(speakers, min(8, len(speakers)))
                these = inside[np.isin(rows[inside, 1], group)]
                learn, test = these[rows[these, 2] == 0], these[rows[these, 2] == 1]
                for kind, classify in (("centroid", centroid), ("lda", lda)):
                    named = classify(features[learn], rows[learn, 1], features[test])
                    hits[kind] += list(named == rows[test, 1])
                half = group[: len(group) // 2]
                base = learn[np.isin(rows[learn, 1], half)]
                best = similarity(scaled, base, test, rows)[0].max(1)
                inner = np.isin(rows[test, 1], half)
                familiar += list(best[inner])
                strange += list(best[~inner])
        same, other = [], []
        for name in sorted(set(corpus[inside])):
            these = inside[corpus[inside] == name]
            learn, test = these[rows[these, 2] == 0], these[rows[these, 2] == 1]
            score, names = similarity(scaled, learn, test, rows)
            match = rows[test, 1][:, None] == names
            same += list(score[match])
            other += list(score[~match])
        out = {f"rooms_{k}": float(np.mean(v)) for k, v in hits.items()}
        out["eer"] = equal_error_rate(same, other)
        out["open_eer"] = equal_error_rate(familiar, strange)
        return out


def similarity(scaled, learn, test, rows):
    """Return cosines (tests, names) of tests to the mean of each name's rows, and the names."""
    names = np.unique(rows[learn, 1])
    means = np.stack([scaled[learn[rows[learn, 1] == n]].mean(0) for n in names])
    return unit(scaled[test]) @ unit(means).T, names


def unit(x):
    """Return rows (n, d) at length 1."""
    return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-9)


def centroid(x, y, t):
    """Name rows t by the cosine to class means, features standardised on x."""
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, t = (x - mean) / std, (t - mean) / std
    names = np.unique(y)
    means = np.stack([x[y == n].mean(0) for n in names])
    return names[(unit(t) @ unit(means).T).argmax(1)]


def lda(x, y, t):
    """Name rows t by LDA with a shrunk covariance, solved among the rows."""
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, t = ((x - mean) / std).astype(np.float64), ((t - mean) / std).astype(np.float64)
    names = np.unique(y)
    means = np.stack([x[y == n].mean(0) for n in names])
    inner = x - means[np.searchsorted(names, y)]
    scale = SHRINK * (inner**2).sum() / len(x) / x.shape[1] + 1e-9
    inner = inner * np.sqrt((1 - SHRINK) / len(x))
    # (scale I + inner' inner)^-1 by Woodbury
    small = np.linalg.solve(scale * np.eye(len(x)) + inner @ inner.T, inner)
    weights = (means - (means @ inner.T) @ small) / scale
    return names[(t @ weights.T - 0.5 * (means * weights).sum(1)).argmax(1)]


def equal_error_rate(same, other):
    """Return the rate at which as many strangers are accepted as same speakers refused."""
    same, other = np.sort(same), np.sort(other)
    cuts = np.concatenate([same, other])
    miss = np.searchsorted(same, cuts) / len(same)
    false = 1 - np.searchsorted(other, cuts) / len(other)
    best = np.abs(miss - false).argmin()
    return float((miss[best] + false[best]) / 2)


def mfcc(logmel, count=20):
    """Return a function of waves: mean and std of `count` cepstral coefficients."""
    bands = np.arange(80)
    basis = np.cos(np.pi / 80 * (bands[None] + 0.5) * np.arange(count)[:, None])
    basis = torch.tensor(basis.T, dtype=torch.float32, device=logmel.filters.device)

    def function(waves):
        cepstra = logmel.mels(waves) @ basis
        return torch.cat([cepstra.mean(1), cepstra.std(1, correction=0)], 1)

    return function
