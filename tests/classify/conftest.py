"""A synthetic corpus for classify: a table with a split, and a store whose layer 1 is the best."""

import hashlib
import io
import json

import numpy as np
import pandas as pd
import pytest
from helpers import TOY_STORE

from spk.extract.store.reader import FeatureStore
from spk.extract.store.writer import StoreWriter
from spk.manifests.table import segment_id, write_predictions, write_table

CONFIG = TOY_STORE | {
    "layers": [0, 1, 2],
    "pooling": "mean+std",
    "dim": 24,
    "resample": False,
}
SESSIONS = ("20990101_S_R001S01C01", "20990101_S_R001S02C01", "20990102_M_R002S01C01")
SPLITS = ("train",) * 6 + ("valid",) * 2 + ("test",) * 2
SPREAD = (6.0, 1.0, 3.0)  # noise per layer around a voice of variance 1: layer 1 is best


def make_table(sessions=SESSIONS, speakers=3, repeats=2):
    """Return a table in which every speaker has ten segments of 1.5 s per repeat."""
    rows = []
    for session in sessions:
        for turn in range(10 * repeats):
            for number in range(speakers):
                label = f"{session}_{number + 1:03d}-M"
                start = 2.0 * (turn * speakers + number)
                end = start + 1.5
                rows.append((segment_id(session, label, start, end), session, label, start, end))
                rows[-1] += (SPLITS[turn % 10], 0.1 * (turn % 3))
    columns = ["segment_id", "session", "speaker", "start", "end", "split", "overlap"]
    return pd.DataFrame(rows, columns=columns).assign(audio="a.wav")


def make_features(table, layers=3, dim=24, seed=0):
    """Return (n, layers, dim) float32: a voice per label and noise that differs by layer."""
    rng = np.random.default_rng(seed)
    voices = {label: rng.normal(size=dim) for label in sorted(set(table["speaker"]))}
    centre = np.array([voices[label] for label in table["speaker"]])
    noise = rng.normal(size=(len(table), layers, dim)) * np.array(SPREAD)[None, :layers, None]
    return (centre[:, None] + noise).astype(np.float32)


def make_store(path, ids, features, rejected=(), **changes):
    """Write a pooled store of `features` (n, layers, dim); `changes` go to its configuration."""
    config = {**CONFIG, "layers": list(range(features.shape[1])), "dim": features.shape[2]}
    with StoreWriter(path, {**config, **changes}) as writer:
        for name, rows in zip(ids, features, strict=True):
            writer.add(name, rows, duration=1.5, frames=74, audio_bytes=48000, audio_crc32=7)
        for name in rejected:
            writer.reject(name, "short", "too short")
    return path


@pytest.fixture(scope="session")
def toy_table():
    return make_table


@pytest.fixture(scope="session")
def toy_features():
    return make_features


@pytest.fixture(scope="session")
def write_store():
    return make_store


@pytest.fixture(scope="session")
def table():
    return make_table()


@pytest.fixture(scope="session")
def features(table):
    return make_features(table)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory, table, features):
    path = tmp_path_factory.mktemp("classify") / "store"
    order = np.random.default_rng(1).permutation(len(table))  # not the table's order
    return make_store(path, table["segment_id"].to_numpy()[order], features[order])


@pytest.fixture(scope="session")
def store(store_path):
    return FeatureStore.open(store_path)


EVIL = "<script>document.title='taken'</script>"
MEETINGS = ("A&<b>", "B")
CURVE = "seconds,accuracy,low,high,segments,speakers\n1,0.4,0.2,0.6,20,4\n10,0.8,0.7,0.9,20,3\n"


def make_recordings(folder, sessions):
    """Write a mono 16 kHz file per session: twenty seconds of noise."""
    import soundfile

    folder.mkdir()
    for number, session in enumerate(sessions):
        noise = np.random.default_rng(number).normal(0, 0.1, 20 * 16000)
        soundfile.write(folder / f"{sessions.index(session)}.wav", noise, 16000, subtype="PCM_16")


def make_heard_table():
    """Return a table of two meetings, two speakers each, with four training and five test rows."""
    rows = []
    for number, session in enumerate(MEETINGS):
        for turn in range(18):
            label = (EVIL, f"{session}_002-F")[turn % 2]
            split = "train" if turn < 8 else "test"
            start, end = turn * 1.0, turn * 1.0 + 0.5 + 0.05 * (turn % 5)
            name = segment_id(session, label, start, end)
            rows.append(
                (name, f"{number}.wav", start, end, label, session, 0.1 * (turn % 3), split)
            )
    columns = ["segment_id", "audio", "start", "end", "speaker", "session", "overlap", "split"]
    return pd.DataFrame(rows, columns=columns)


def make_predictions(table, wrong, model="ridge, layer 1"):
    """Return predictions of the test rows; the rows numbered `wrong` are mistaken."""
    test = table[table["split"] == "test"].reset_index(drop=True)
    others = {session: sorted(set(rows["speaker"])) for session, rows in table.groupby("session")}
    rows = []
    for number, row in test.iterrows():
        swapped = next(name for name in others[row["session"]] if name != row["speaker"])
        predicted = swapped if number in wrong else row["speaker"]
        score = 0.5 + 0.02 * number
        chances = {
            name: score if name == predicted else 1 - score for name in others[row["session"]]
        }
        rows.append((row["segment_id"], row["session"], row["speaker"], predicted, score, chances))
    columns = ["segment_id", "session", "speaker", "predicted", "score", "scores"]
    named = pd.DataFrame(rows, columns=columns).assign(split="test", model=model)
    return named.assign(scores=named["scores"].map(json.dumps))


@pytest.fixture(scope="session")
def heard(tmp_path_factory):
    """Return a folder with a report's inputs: table.csv, wav/, a run `one` and `two.csv`."""
    folder = tmp_path_factory.mktemp("heard")
    make_recordings(folder / "wav", MEETINGS)
    table = make_heard_table()
    write_table(table, folder / "table.csv")
    write_predictions(make_predictions(table, {2, 5, 11}), folder / "one" / "predictions.csv")
    write_predictions(make_predictions(table, {2}, "lda, layer 0"), folder / "two.csv")
    sweep = [
        f"{layer},{name},1,{0.5 + 0.1 * layer},0.3,0.9,0.7,{'yes' if layer else ''}"
        for layer in (0, 1)
        for name in ("ridge",)
    ]
    head = "layers,classifier,penalty,valid_accuracy,valid_low,valid_high,valid_log_loss,chosen"
    (folder / "one" / "sweep.csv").write_text("\n".join([head, *sweep]) + "\n")
    config = {"settings": {"within": "session", "penalty": None}, "store": {"encoder": EVIL}}
    config |= {"chosen": {"classifier": "ridge"}, "facts": [EVIL]}
    (folder / "one" / "config.json").write_text(json.dumps(config))
    (folder / "one" / "learning.csv").write_text(CURVE)
    return folder


@pytest.fixture(scope="session")
def heard_page(heard):
    """Return the page of `heard`: a sweep's folder and a predictions table, with players."""
    from spk.classify.report.page import report

    runs = [str(heard / "one"), str(heard / "two.csv")]
    return report(runs, table=heard / "table.csv", audio_root=heard / "wav")


@pytest.fixture(scope="session")
def heard_table():
    return make_heard_table


@pytest.fixture(scope="session")
def predicted():
    return make_predictions


@pytest.fixture(scope="session")
def with_curves():
    return write_with_curves


def write_with_curves(source, target):
    """Write a model folder again in the old form, with isotonic curves; return it.

    The curve of each label goes through (0, 0.1), (0.5, 0.6) and (1, 0.9).
    """
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    description = json.loads((source / "model.json").read_text())
    with np.load(source / "arrays.npz") as file:
        arrays = dict(file)
    for number, entry in enumerate(description["fitted"]):
        curves = [[(k, 0, 0.1), (k, 0.5, 0.6), (k, 1, 0.9)] for k in range(len(entry["labels"]))]
        arrays[f"{number}.knots"] = np.concatenate(curves).astype(np.float64)
    image = io.BytesIO()
    np.savez(image, **arrays)
    (target / "arrays.npz").write_bytes(image.getvalue())
    description["calibration"] = "isotonic"
    description["sha256"]["arrays.npz"] = hashlib.sha256(image.getvalue()).hexdigest()
    (target / "model.json").write_text(json.dumps(description))
    return target
