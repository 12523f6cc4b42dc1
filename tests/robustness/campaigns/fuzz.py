"""Feed bytes to the readers of files from elsewhere.

Usage: ``python tests/robustness/campaigns/fuzz.py TARGET [SECONDS]``.

A target takes any bytes and either returns or raises `InputError`; any other exception is a
finding. What was read is also written and read again, and must be the same. ``make fuzz`` runs each
target for ten minutes, guided by coverage if atheris can be installed, else by hypothesis. The
bytes of a finding are printed as a Python literal; add them as a case to `test_readers.py`, or to
the reader's own tests.
"""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import FunctionType

import numpy as np
import pandas as pd

from spk.common.errors import InputError
from spk.extract.store.layout import fingerprint
from spk.extract.store.maintenance import store_info, verify_store
from spk.extract.store.reader import FeatureStore
from spk.extract.store.shard import TRAILER
from spk.extract.store.writer import StoreWriter
from spk.manifests.formats.build import make_table, read_identity
from spk.manifests.formats.registry import FORMATS, read_turns, write_turns
from spk.manifests.formats.rttm import read_rttm
from spk.manifests.formats.textgrid import read_textgrid
from spk.manifests.formats.thesis_csv import read_reference_csv
from spk.manifests.formats.turns import Annotation
from spk.manifests.split_record import read_record, summarise
from spk.manifests.table import read_predictions, read_table, write_table

CONFIG = {
    "schema": 1,
    "kind": "pooled",
    "encoder": "tiny",
    "revision": "0123abc",
    "layers": [0, 2],
    "pooling": "mean",
    "dim": 2,
    "dtype": "float16",
    "rate": 16000,
    "channel": "0",
    "resample": False,
}
LINE = "SPEAKER S1 1 1.5 2.25 <NA> <NA> 001-M <NA> <NA>\n"
GRID = (
    'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n9\n<exists>\n1\n"IntervalTier"\n'
    '"001-M"\n0\n9\n2\n0\n2\n"嗯"\n2\n9\n""\n'
)
TABLE = "segment_id,audio,start,end,speaker,session,line\na,a.wav,0,1.5,001,NA,3\n"
KINDS = ("whisperx", "eaf", "lhotse", "srt", "vtt", "txt", "csv", "kaldi", "nemo")
KALDI = ("segments", "utt2spk", "wav.scp", "reco2file_and_channel")
EAF = (
    b'<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="milliseconds"/><TIME_ORDER><TIME_SLOT '
    b'TIME_SLOT_ID="a" TIME_VALUE="5"/><TIME_SLOT TIME_SLOT_ID="b" TIME_VALUE="900"/></TIME_ORDER>'
    b'<TIER TIER_ID="A"><ANNOTATION><ALIGNABLE_ANNOTATION TIME_SLOT_REF1="a" TIME_SLOT_REF2="b">'
    b"</ALIGNABLE_ANNOTATION></ANNOTATION></TIER></ANNOTATION_DOCUMENT>"
)
SEEDS = {  # initial inputs of a guided run
    "rttm": [LINE.encode(), (LINE * 2).encode("utf-16"), b";; note\nSPKR-INFO x\n"],
    "textgrid": [GRID.encode(), GRID.encode("utf-16")],
    "turns": [
        b'\0{"segments": [{"start": 0, "end": 1.5, "text": " x", "speaker": "A"}]}',
        b'\0[{"session_id": "M", "speaker": "A", "start_time": "1", "end_time": 2, "words": "x"}]',
        b"\1" + EAF,
        b'\2{"id": "x", "recording_id": "r", "start": 0.5, "duration": 1, "speaker": "A"}\n',
        b"\0031\n00:00:01,5 --> 00:00:02\n[A]: x\n\n2\n0:0:3.25 --> 00:09:00,000\n[B]:\n",
        b"\4WEBVTT\n\n00:01.000 --> 00:02.000 line:0\n<v.loud A>x</v> <v B>y\n",
        b"\5[00:00.000 --> 00:02.000]  A: x\n",
        b"\6file,start,end,speaker\na/S1.wav,0 days 00:00:01,2.5,A\n",
        b"\7u1 r1 0.5 2 1\nu2 r1 3 4\n\0u1 A\nu2 B\n",
        b"\7u1 r1 0 2\nu2 r2 3 -1\n\0u1 A\nu2 B\n\0r1 S1.wav\nr2 S1.wav\n\0r1 f A\nr2 f B\n",
        b'\x08{"audio_filepath": "S1.wav", "offset": 0.5, "duration": 1, "label": "A"}\n',
        b'\x08{"audio_filepath": "S1.wav", "duration": null, "label": "A", "uniq_id": "M"}\n',
        b'\x08{"audio_filepath": "a/S1.wav", "rttm_filepath": "a.rttm", "label": "infer"}\n',
    ],
    "csv": [
        b"\0" + TABLE.encode(),
        b"\1path,label\nd/S1_001_0003.wav,S1_001\n",
        b"\2session,speaker,person\nS1,001,Ann\n",
        b"\3segment_id,session,speaker,predicted,score,split,model\na,S,1,2,0.5,test,m\n",
        b'\4{"method": "random", "parameters": {}, "counts": {"train": 1}, "purged": {}, '
        b'"leaky": true, "untrained": [], "untested": []}',
    ],
    "store": [
        b"\0\0\0\7\1\0\0\x99\2",
        b"\1" + json.dumps(CONFIG).encode(),
        b'\2{"schema": 1, "fingerprint": "x", "configuration": {}, "versions": {}}',
        b"\3" + json.dumps(CONFIG).encode(),
        b'\4[{"segment_id": "x", "code": "silent", "message": "all are 0"}]',
    ],
}


def again(reading: Annotation, folder: Path) -> None:
    """Make a table of what was read; reading it back from disk must give the same table."""
    table = make_table(reading, skip_bad=True)
    for name in ("t.csv", "t.parquet"):
        write_table(table, folder / name)
        if not read_table(folder / name).equals(table):
            raise ValueError(f"{name}: another table comes back")


def rttm(data: bytes, folder: Path) -> None:
    """Read any bytes as RTTM."""
    path = folder / "a.rttm"
    path.write_bytes(data)
    again(read_rttm(path, skip_bad=bool(len(data) % 2)), folder)


def textgrid(data: bytes, folder: Path) -> None:
    """Read any bytes as a TextGrid."""
    path = folder / "S1.TextGrid"
    path.write_bytes(data)
    again(read_textgrid(path, skip_bad=bool(len(data) % 2)), folder)


def turns(data: bytes, folder: Path) -> None:
    """Read any bytes as one of the other formats, which the first byte names, and write them."""
    kind = KINDS[data[0] % len(KINDS) if data else 0]
    path = folder / "data"
    if kind == "kaldi":
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        parts = data[1:].split(b"\0")
        for name, part in zip(KALDI, parts if len(parts) > 1 else parts * 2, strict=False):
            (path / name).write_bytes(part)
    else:
        path = folder / f"S1{FORMATS[kind].suffixes[-1]}"
        path.write_bytes(data[1:])
    annotation = read_turns(path, kind, skip_bad=bool(len(data) % 2))
    with suppress(InputError):  # most listed recordings do not exist
        make_table(annotation, skip_bad=True)
    annotation.recordings.clear()
    again(annotation, folder)
    rows = pd.DataFrame([turn._asdict() for turn in annotation.turns])
    shutil.rmtree(folder / "again", ignore_errors=True)
    write_turns(rows, folder / "again", kind)
    found = read_turns(folder / "again", kind)
    if len(found.turns) != len(rows):
        raise ValueError(f"{len(rows)} turns are written, {len(found.turns)} come back")


def csv(data: bytes, folder: Path) -> None:
    """Read any bytes as each of the tables; the first byte says which."""
    path = folder / "a.csv"
    path.write_bytes(data[1:])
    kind = data[0] % 5 if data else 0
    if kind == 0:
        table = read_table(path)
        write_table(table, folder / "again.csv")
        if not read_table(folder / "again.csv").equals(table):
            raise ValueError("another table comes back")
    elif kind == 1:
        read_reference_csv(path, audio_root=folder, skip_bad=True)
    elif kind == 2:
        read_identity(path)
    elif kind == 3:
        read_predictions(path)
    else:
        path.with_name("a.csv.split.json").write_bytes(data[1:])
        summarise(read_record(path) or {})


def store(data: bytes, folder: Path) -> None:
    """Open a store partly changed by the bytes; the first byte says which part."""
    path = folder / "store"
    expected = _make_store(path)
    (shard,) = (path / "shards").iterdir()
    kind, rest = (data[0] % 5, data[1:]) if data else (0, b"")
    if kind == 0:
        _flip(shard, rest)
    elif kind == 1:
        _describe(path, rest)
    elif kind == 2:
        (path / "store.json").write_bytes(rest)
    else:
        _forge(shard, "configuration" if kind == 3 else "rejected", rest)
    store_info(path)
    found = FeatureStore.open(path)
    for layer in found.layers:
        if not np.array_equal(
            found.read(found.ids(), layer), expected[:, found.layers.index(layer)]
        ):
            raise ValueError("other features than were written")
    verify_store(path)


def _make_store(path: Path) -> np.ndarray:
    shutil.rmtree(path, ignore_errors=True)
    features = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    with StoreWriter(path, CONFIG) as writer:
        for name, row in zip("abc", features, strict=True):
            writer.add(name, row, duration=1.5, frames=74, audio_bytes=9, audio_crc32=7)
        writer.reject("x", "silent", "all are 0")
    return features


def _flip(shard: Path, edits: bytes) -> None:
    """Change bytes: three of `edits` say where, the fourth by what; an odd rest cuts the file."""
    content = bytearray(shard.read_bytes())
    for first in range(0, len(edits) - 3, 4):
        content[int.from_bytes(edits[first : first + 3], "big") % len(content)] ^= edits[first + 3]
    shard.write_bytes(content[: len(content) - (len(edits) % 4) * 100])


def _describe(path: Path, text: bytes) -> None:
    """Write any JSON as the configuration, with the fingerprint that belongs to it."""
    try:
        config = json.loads(text)
        mark = fingerprint(config)
    except (ValueError, RecursionError):
        return
    described = {"schema": 1, "fingerprint": mark, "configuration": config, "versions": {}}
    (path / "store.json").write_text(json.dumps(described))


def _forge(shard: Path, what: str, content: bytes) -> None:
    """Put any bytes where JSON is expected in a shard, and seal it as its writer would."""
    import h5py

    spec = importlib.util.spec_from_file_location("forge", Path(__file__).with_name("forge.py"))
    forge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(forge)
    shard.write_bytes(shard.read_bytes()[: -TRAILER.size])
    with h5py.File(shard, "r+") as file:
        if what == "rejected":
            del file["rejected"]
            file.create_dataset("rejected", data=np.frombuffer(content, "u1"))
        else:
            file.attrs[what] = np.bytes_(content)
    forge.seal(shard)


TARGETS = {"rttm": rttm, "textgrid": textgrid, "turns": turns, "csv": csv, "store": store}


def refusal(name: str, data: bytes, folder: Path) -> str | None:
    """Return the message with which a target refused the bytes, or None if it accepted them.

    An `InputError` is a refusal; any other exception is a finding.
    """
    try:
        TARGETS[name](data, folder)
    except InputError as problem:
        message = str(problem)
        message.encode()  # it must be printable
        return message
    return None


def try_one(name: str, data: bytes, folder: Path) -> bool:
    """Return whether a target accepted the bytes."""
    return refusal(name, data, folder) is None


def main(name: str, seconds: float) -> None:
    """Run a target for a while; end with the traceback and bytes of the first finding."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a store is synced to its disk
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-", dir=memory))
    counts: Counter = Counter()
    engine = _guided if importlib.util.find_spec("atheris") else _random
    began = time.perf_counter()

    def end() -> None:
        told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        spent = f"{time.perf_counter() - began:.0f} s"
        print(f"{name}: {engine.__name__[1:]}, {spent}, {told}; nothing found", flush=True)
        shutil.rmtree(folder, ignore_errors=True)

    def one(data: bytes) -> None:
        data = bytes(data)
        try:
            counts["taken" if try_one(name, data, folder) else "refused"] += 1
        except BaseException:
            print(f"FOUND {name}: {data[:2000]!r}", flush=True)
            raise
        if engine is _guided and time.perf_counter() > began + seconds:
            end()
            os._exit(0)  # libFuzzer would end the process before anything could be reported

    for seed in SEEDS[name]:
        one(seed)
    engine(one, name, seconds, folder)
    end()


def _guided(one, name: str, seconds: float, folder: Path) -> None:
    import atheris

    from spk.extract.store import layout, reader, shard
    from spk.extract.store import shard as contents
    from spk.manifests import table
    from spk.manifests.formats import build, textgrid, thesis_csv, turns
    from spk.manifests.formats import rttm as rttm_room
    from spk.manifests.splits import split

    modules = {
        "rttm": (turns, rttm_room, build, table),
        "textgrid": (turns, textgrid, build, table),
        "csv": (table, thesis_csv, build, split),
        "store": (contents, layout, reader, shard),
    }
    for module in modules[name]:
        for function in _functions(module):
            function.__code__ = atheris.instrument_func(function).__code__
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(seed)
    words = [sys.argv[0], f"-artifact_prefix={folder}/", "-max_len=2000", "-verbosity=0"]
    atheris.Setup([*words, "-rss_limit_mb=3000", str(corpus)], one)
    atheris.Fuzz()


def _functions(module) -> list:
    """Return the functions of a module, and those of its classes."""
    own = [v for v in vars(module).values() if getattr(v, "__module__", "") == module.__name__]
    classes = [value for value in own if isinstance(value, type)]
    own += [value for one in classes for value in vars(one).values()]
    return [value for value in own if isinstance(value, FunctionType)]


def _random(one, name: str, seconds: float, folder: Path) -> None:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    end = time.perf_counter() + seconds
    seeds = st.sampled_from(SEEDS[name])
    edits = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4), st.binary(max_size=9)))

    def changed(seed: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
        for place, gone, new in changes:
            seed = seed[:place] + new + seed[place + gone :]
        return seed

    @settings(
        max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.one_of(st.binary(max_size=400), st.builds(changed, seeds, edits)))
    def run(data: bytes) -> None:
        one(data)

    while time.perf_counter() < end:
        run()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 600)
