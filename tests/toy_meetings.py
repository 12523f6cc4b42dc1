"""Toy meetings to link: two series of sessions, loud rooms, and one id that changes hands."""

import zlib

import numpy as np
import pandas as pd
from helpers import TOY_STORE

from spk.extract.store.writer import StoreWriter

CONFIG = TOY_STORE | {"layers": [0, 1], "dim": 24}
ROOM, NOISE = 2.0, (6.0, 0.7)  # deviations beside a voice's 1; of the noise, by layer
SERIES = {"20990101_S_R001": "ABCDE", "20990102_M_R002": "FGHIJ"}
STRANGER, CHANGED = "X", ("20990102_M_R002S03C01", "001-M")  # who has that id there


def toy_people(sessions=3):
    """Return {(session, id): person}."""
    people = {
        (f"{series}S0{number}C01", f"{place:03d}-M"): person
        for series, persons in SERIES.items()
        for number in range(1, sessions + 1)
        for place, person in enumerate(persons, start=1)
    }
    return people | ({CHANGED: STRANGER} if CHANGED in people else {})


def toy_table(people, turns=8, seconds=2.5):
    """Return a table in which everybody takes turns of some s."""
    rows = []
    for turn in range(turns):
        for place, (session, speaker) in enumerate(sorted(people)):
            start = 3.0 * (turn * len(people) + place)
            name = f"{session}_{speaker}_{turn}"
            rows.append((name, session, f"{session}_{speaker}", start, start + seconds))
    table = pd.DataFrame(rows, columns=["segment_id", "session", "speaker", "start", "end"])
    return table.assign(audio=table["session"] + ".wav", overlap=0.0)


def direction(name, dim=24):
    """Return a vector (dim,), the same wherever it is asked for."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=dim)


def toy_vectors(table, people, noise=NOISE, room=ROOM):
    """Return (n, layers, dim) float32: a voice per person, a room per session, and noise."""
    rng = np.random.default_rng(0)
    pairs = zip(table["session"], table["speaker"].str[-5:], strict=True)
    voices = np.stack([direction(people[pair]) for pair in pairs])
    rooms = room * np.stack([direction(session) for session in table["session"]])
    parts = [voices + rooms + sigma * rng.normal(size=voices.shape) for sigma in noise]
    return np.stack(parts, axis=1).astype(np.float32)


def toy_store(path, table, vectors):
    """Write a store of the table's vectors."""
    lengths = (table["end"] - table["start"]).tolist()
    with StoreWriter(path, {**CONFIG, "layers": list(range(vectors.shape[1]))}) as writer:
        for name, rows, seconds in zip(table["segment_id"], vectors, lengths, strict=True):
            facts = {"audio_bytes": int(seconds * 64000), "audio_crc32": zlib.crc32(name.encode())}
            writer.add(name, rows, duration=seconds, frames=9, **facts)
    return path
