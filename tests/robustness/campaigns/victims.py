"""The commands to kill: how their work shows on disk, and what they promise to keep.

Each `Victim` defines the command line, what is committed in its folder (a digest per row, file,
epoch or cell), and what must be there in the end. Digests are of bits: nothing may differ.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from click.testing import CliRunner

from spk.common.errors import InputError
from spk.extract import FeatureStore, StoreWriter
from spk.extract.store.cli import store as commands
from spk.manifests.demo.corpus import demo
from spk.manifests.formats.build import make_table
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.splits.split import split_table
from spk.manifests.table import write_table

Items = dict[str, str]  # what is committed -> digest
CONFIG = {
    "schema": 1,
    "kind": "pooled",
    "encoder": "none",
    "revision": None,
    "pooling": "mean",
    "layers": [0, 1, 2, 3],
    "dim": 96,
    "dtype": "float16",
    "rate": 16000,
    "channel": "0",
}
SOUND = {"frames": 49, "audio_bytes": 100, "audio_crc32": 7}
SILENT = 5  # segments of digital silence, which are rejected


class Victim:
    """A command to be killed; paths in it are relative to its working folder.

    Attributes
    ----------
    out : str
        The output.
    commits : int
        Approximate number of commits in a run; one of them is drawn to be killed in.
    done : tuple of int
        Exit codes of a complete run.
    watched : bool
        Whether the output can be read while it is written.
    """

    out = "out"
    commits = 3
    done: tuple[int, ...] = (0,)
    watched = True

    def __init__(self, name: str, words: Callable[[Path, int], str]) -> None:
        self.name, self._words = name, words

    def words(self, inputs: Path, turn: int) -> list[str]:
        """Return the command line; some settings vary with `turn`, but results do not."""
        return self._words(inputs, turn).split()

    def sign(self, folder: Path) -> object:
        """Return something that changes as soon as a writer works."""
        raise NotImplementedError

    def torn(self, folder: Path) -> set[object]:
        """Return what is half-written."""
        raise NotImplementedError

    def beats(self, folder: Path) -> set[object]:
        """Return something that changes with each commit, during or just after it."""
        return self.torn(folder)

    def files(self, folder: Path) -> set[str]:
        """Return the committed files, judging by the folder's listing alone."""
        raise NotImplementedError

    def look(self, folder: Path) -> Items:
        """Return the committed items; any exception means that they cannot be read."""
        raise NotImplementedError

    def whole(self, folder: Path) -> Items:
        """Return everything that a finished run must have left, bit for bit."""
        raise NotImplementedError


class Store(Victim):
    """An extraction or a merge: a store, its rows, and its list of rejected segments."""

    def __init__(self, name: str, words: Callable[[Path, int], str], *, done: int) -> None:
        super().__init__(name, words)
        self.done = (done,)

    def sign(self, folder: Path) -> object:
        """Return who holds the lock, or held it last."""
        return _text(folder / self.out / "lock")

    def torn(self, folder: Path) -> set[object]:
        """Return shards, and the description, that are not complete."""
        out = folder / self.out
        return _hidden(out / "shards", ".writing-") | _hidden(out, ".writing-")

    def files(self, folder: Path) -> set[str]:
        """Return the names of the shards."""
        return {name for name in _names(folder / self.out / "shards") if name[0] != "."}

    def look(self, folder: Path) -> Items:
        """Return a digest of each row, with its columns and all layers; verify all bytes."""
        out = folder / self.out
        if not (out / "store.json").exists():
            return {}
        proved = CliRunner().invoke(commands, ["verify", str(out)])
        if proved.exit_code:
            raise InputError(proved.output)
        store = FeatureStore.open(out)
        rows = store.rows()
        ids = rows["segment_id"].tolist()
        digests = [hashlib.sha256(repr(row).encode()) for row in zip(*_lists(rows), strict=True)]
        for layer in store.layers if ids else []:
            if store.kind == "pooled":
                features = list(store.read(ids, layer))
            else:
                features = [store.read_frames(name, layer) for name in ids]
            for digest, values in zip(digests, features, strict=True):
                digest.update(values.tobytes())
        return {name: digest.hexdigest() for name, digest in zip(ids, digests, strict=True)}

    def whole(self, folder: Path) -> Items:
        """Return the rows, the rejected segments, and the bytes of their list."""
        store = FeatureStore.open(folder / self.out)
        rejected = {f"rejected {row['segment_id']}": repr(row) for row in store.rejected()}
        listed = sorted(_text(folder / f"{self.out}.rejected.csv").splitlines())
        left = {name: "left" for name in _names(folder) if name.startswith(f".{self.out}")}
        return {**self.look(folder), **rejected, "list": repr(listed), **left}


class Cut(Victim):
    """A folder of cut segments."""

    commits = 40

    def sign(self, folder: Path) -> object:
        """Return the request's file, which each run rewrites."""
        path = folder / self.out / "cut.json"
        return path.stat().st_ino if path.exists() else None

    def torn(self, folder: Path) -> set[object]:
        """Return files that are not complete."""
        return _hidden(folder / self.out, ".") - _hidden(folder / self.out, ".lock")

    def files(self, folder: Path) -> set[str]:
        """Return the names of the cut segments."""
        return {name for name in _names(folder / self.out) if name.endswith((".wav", ".flac"))}

    def look(self, folder: Path) -> Items:
        """Return a digest of each cut segment's bytes."""
        return {name: _digest(folder / self.out / name) for name in self.files(folder)}

    def whole(self, folder: Path) -> Items:
        """Return a digest of every file."""
        out = folder / self.out
        return {name: _digest(out / name) for name in _names(out) if name != ".lock"}


class Fleet(Victim):
    """A fine-tuning run: epochs and finished sessions."""

    commits = 30
    done = (3,)  # one of the sessions has too few segments to be trained
    watched = False  # a checkpoint may be replaced between its name and its bytes

    def sign(self, folder: Path) -> object:
        """Return who holds the sessions' locks, or held them last."""
        return [_text(path) for path in sorted((folder / self.out).glob("version_*/lock"))]

    def torn(self, folder: Path) -> set[object]:
        """Return files that are not complete."""
        versions = sorted((folder / self.out).glob("version_*"))
        places = [folder / self.out, *versions]
        places += [path / below for path in versions for below in ("checkpoints", "prefix")]
        return {name for place in places for name in _hidden(place, ".")}

    def files(self, folder: Path) -> set[str]:
        """Return the finished sessions."""
        return {str(path) for path in (folder / self.out).glob("version_*/result.json")}

    def look(self, folder: Path) -> Items:
        """Return epochs in history and checkpoint, and what finished sessions have left."""
        import torch

        found: Items = {}
        for version in sorted((folder / self.out).glob("version_*")):
            for epoch, row in enumerate(_history(version / "metrics.csv")):
                found[f"{version.name} epoch {epoch}"] = row
            for last in version.glob("checkpoints/*-last.ckpt"):
                for epoch in range(torch.load(last, weights_only=True)["epoch"] + 1):
                    found[f"{version.name} kept {epoch}"] = "kept"
            if not (version / "result.json").is_file():
                continue
            result = json.loads((version / "result.json").read_bytes())
            for epoch in range(result["epochs"]):
                found[f"{version.name} kept {epoch}"] = "kept"
            found[f"{version.name} result"] = repr({**result, "seconds": 0})
            found[f"{version.name} named"] = _digest(version / "predictions.csv")
            found[f"{version.name} best"] = _tensors(*version.glob("checkpoints/*-best.ckpt"))
        return found

    def whole(self, folder: Path) -> Items:
        """Return the same, with the run's tables, and anything that should have been removed."""
        out = folder / self.out
        sessions = pd.read_csv(out / "sessions.csv").drop(columns="seconds").to_csv()
        tables = {"sessions": sessions, "predictions": _digest(out / "predictions.csv")}
        left = {str(path): "left" for path in out.glob("version_*/checkpoints/*-last.ckpt")}
        left |= {str(path): "left" for path in out.glob("version_*/prefix")}
        left |= {str(name): "left" for name in self.torn(folder)}
        return {**self.look(folder), **tables, **left}


class Sweep(Victim):
    """A sweep: finished cells, and the results drawn from them."""

    done = (3,)  # one of the meetings has too few segments
    commits = 24
    results = ("sweep.csv", "metrics.csv", "predictions.csv", "config.json")

    def sign(self, folder: Path) -> object:
        """Return the file of cells, which each run first rewrites."""
        path = folder / self.out / "cells.jsonl"
        return path.stat().st_ino if path.exists() else None

    def torn(self, folder: Path) -> set[object]:
        """Return files that are not complete, and a line that was cut off."""
        torn = _hidden(folder / self.out, ".") - _hidden(folder / self.out, ".lock")
        content = _bytes(folder / self.out / "cells.jsonl")
        return torn | ({len(content)} if content and not content.endswith(b"\n") else set())

    def beats(self, folder: Path) -> set[object]:
        """Return the size of the file of cells, and what is half-written."""
        path = folder / self.out / "cells.jsonl"
        return self.torn(folder) | ({path.stat().st_size} if path.exists() else set())

    def files(self, folder: Path) -> set[str]:
        """Return the finished cells."""
        return set(self.look(folder))

    def look(self, folder: Path) -> Items:
        """Return each whole line of the cells."""
        content = _bytes(folder / self.out / "cells.jsonl")
        cells = [json.loads(line) for line in content.split(b"\n")[1:-1]]
        return {f"{cell['layers']} {cell['classifier']}": repr(cell) for cell in cells}

    def whole(self, folder: Path) -> Items:
        """Return the cells and the bytes of the results."""
        out = folder / self.out
        results = {name: _digest(out / name) for name in self.results}
        left = {str(name): "left" for name in self.torn(folder)}
        # `jobs` is recorded in the settings but is not a result
        config = json.loads((out / "config.json").read_bytes())
        config["settings"]["jobs"] = 0
        return {**self.look(folder), **results, **left, "config.json": repr(config)}


def victims() -> list[Victim]:
    """Return all victims; in their words, `inputs` is the folder that `make_inputs` has filled."""
    extract = "spk-extract {0}/many.csv out --audio-root {0}/wav --encoder demo --workers 2"
    fit = (
        "spk-finetune fit {0}/split.csv --audio-root {0}/wav --encoder demo --log-dir out "
        "--accelerator cpu --max-epochs 3 --patience none --freeze-encoder-layers 2 "
        "--batch-seconds 10 --learning-rate 1e-3 --no-keep-last"
    )
    sweep = "spk-classify sweep {0}/split.csv {0}/features out --jobs {1}"
    frames = " --frames --shard 1/2 --layers 1,4"  # they are many
    return [
        Store("extraction, pooled", lambda inputs, _: extract.format(inputs), done=3),
        Store("extraction, --frames", lambda inputs, _: extract.format(inputs) + frames, done=3),
        Store(
            "merge",
            lambda inputs, _: f"spk-store merge {inputs}/1 {inputs}/2 {inputs}/3 out",
            done=3,
        ),
        Cut(
            "cut",
            lambda inputs, _: f"spk-manifests cut {inputs}/turns.csv out --audio-root {inputs}/wav",
        ),
        Fleet("fleet", lambda inputs, turn: fit.format(inputs) + " --cache-prefix" * (turn % 2)),
        Sweep("sweep", lambda inputs, turn: sweep.format(inputs, 1 + (turn % 3 == 2))),
    ]


def make_inputs(folder: Path, rows: int) -> None:
    """Make meetings, tables, and stores to merge; `rows` is the size of the largest."""
    names = demo(folder, sessions=3, minutes=1, speakers=3, channels=1)
    soundfile.write(folder / "wav" / "silent.flac", np.zeros(16000, np.int16), 16000)
    turns = make_table(read_rttm(folder / "TextGrid"), audio_root=folder / "wav")
    write_table(turns, folder / "turns.csv")
    table = split_table(turns, "chronological")
    write_table(table, folder / "split.csv")
    _features(table, folder / "features")
    write_table(_many(names, rows), folder / "many.csv")
    _stores(folder, rows)


def _many(names: Iterable[str], rows: int) -> pd.DataFrame:
    """Return a table of short segments that overlap: many commits of little audio."""
    rng, names = random.Random(1), list(names)
    table = []
    for number in range(rows):
        start, length = rng.randrange(50), rng.choice((0.1, 0.12, 0.15))
        audio = "silent.flac" if number < SILENT else f"{names[number % len(names)]}.flac"
        start = 0 if number < SILENT else start
        row = {
            "segment_id": f"s{number:05d}",
            "audio": audio,
            "start": start,
            "end": start + length,
        }
        table.append({**row, "speaker": f"p{number % 4}", "session": audio[:-5]})
    return pd.DataFrame(table)


def _stores(folder: Path, rows: int) -> None:
    """Write three stores of one configuration, in part of the same rows."""
    rng = np.random.default_rng(2)
    features = rng.standard_normal((rows, 4, 96)).astype(np.float16)
    third = rows // 3
    for part in range(3):
        with StoreWriter(folder / str(part + 1), CONFIG, commit_rows=200) as writer:
            for row in range(part * third - 10 * bool(part), (part + 1) * third):
                writer.add(f"r{row:05d}", features[row], **SOUND, duration=1.0 + row)
            writer.reject(f"x{part}", "silent", "all 100 samples are 0")


def _features(table: pd.DataFrame, folder: Path) -> None:
    """Write features that tell the table's speakers apart, higher layers better."""
    rng = np.random.default_rng(3)
    centres = {name: rng.standard_normal((4, 96)) for name in sorted({*table["speaker"]})}
    with StoreWriter(folder, CONFIG) as writer:
        for row in table.itertuples():
            noise = rng.standard_normal((4, 96)) * np.array([[8], [6], [4], [2]])
            features = centres[row.speaker] + noise
            writer.add(row.segment_id, features, **SOUND, duration=row.end - row.start)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def _hidden(folder: Path, begin: str) -> set[object]:
    """Return a folder's hidden files with their inode numbers, so that a later file differs."""
    found = set()
    for name in _names(folder):
        if name.startswith(begin):
            try:
                found.add((name, (folder / name).stat().st_ino))
            except OSError:
                continue
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _text(path: Path) -> str:
    return _bytes(path).decode()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _lists(rows: dict[str, np.ndarray]) -> list[list]:
    return [values.tolist() for values in rows.values()]


def _history(path: Path) -> list[str]:
    """Return each epoch's row as written, without its duration."""
    if not path.is_file():
        return []
    rows = pd.read_csv(path, dtype=str).drop(columns="seconds")
    return [repr(row) for row in rows.to_dict("records")]


def _tensors(path: Path) -> str:
    """Return a digest of a checkpoint's tensors and names."""
    import torch

    digest = hashlib.sha256()
    for name, values in torch.load(path, weights_only=True)["state_dict"].items():
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
