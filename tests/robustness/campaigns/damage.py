"""Damage committed stores at random places.

Usage: ``python tests/robustness/campaigns/damage.py [PLACES] [SEED]``.

In each round, a fresh copy of a store loses or changes something: a byte is flipped, a file is
truncated, a shard is deleted. Then these questions are asked of the copy:

- does `spk-store verify` name the file (a deleted shard leaves nothing to name);
- is every value that can still be read the one that was written;
- does the repair in the message restore the store: the named files are deleted and `spk-extract`
  runs again (a packed file is packed again). The rows extracted again are counted, and those of
  them that were unharmed but in a deleted file.

Exit code 1 if a wrong value was read or a promise was broken.
"""

import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scene import ALONE, Corpus, contents, make_corpus, must, one_layer, scratch, typed

from spk.common.errors import InputError
from spk.extract.store.reader import FeatureStore
from spk.extract.store.shard import read_shard

PARTS = 4
KINDS = ("pooled", "frames", "merged", "packed")
CHANGES = ("flip", "flip", "flip", "cut", "delete")  # flips are the subtle ones
COLUMNS = (
    *("changed", "nothing promised", "found by verify", "found by read", "missed", "wrong reads"),
    *("rows harmed", "rows extracted again", "needlessly", "back as it was"),
)


@dataclass(frozen=True)
class Original:
    """A committed store and its content."""

    path: Path
    truth: dict[str, tuple[bytes, ...]]
    again: str  # the command that extracts what is missing, with `STORE` for its name


def make_originals(folder: Path, corpus: Corpus) -> dict[str, Original]:
    """Make the stores: pooled and frames in several shards, merged to one, packed to a file."""
    for kind, more in (("pooled", ""), ("frames", "--frames")):
        for part in range(1, PARTS + 1):
            must(corpus.extract(folder / kind, f"{more} --shard {part}/{PARTS}"))
    must(f"spk-store merge {folder}/pooled {folder}/merged")
    must(f"spk-store pack {folder}/pooled {folder}/packed")
    again = {
        "frames": corpus.extract(Path("STORE"), "--frames"),
        "packed": f"spk-store pack {folder}/pooled STORE",
    }
    return {
        kind: Original(
            folder / kind,
            contents(folder / kind),
            again.get(kind, corpus.extract(Path("STORE"))),
        )
        for kind in KINDS
    }


def change(path: Path, how: str, rng: np.random.Generator) -> tuple[Path, int]:
    """Change one file of a store; return which, and at which byte."""
    files = [path] if path.is_file() else sorted((path / "shards").iterdir())
    if path.is_dir() and how != "delete" and rng.random() < 0.15:
        files = [path / "store.json"]
    file = files[rng.integers(len(files))]
    content = bytearray(file.read_bytes())
    place = int(rng.integers(len(content)))
    if how == "delete":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[:place])
    else:
        content[place] ^= int(rng.integers(1, 256))
        file.write_bytes(content)
    return file, place


def harmed(original: Original, copy: Path, file: Path, how: str, place: int) -> set[str]:
    """Return the segments whose features, or rejection, a change may have affected."""
    if file.name == "store.json":
        return set()
    shard = read_shard(original.path / file.relative_to(copy) if copy != file else original.path)
    names = {*shard.columns["segment_id"].tolist(), *(row["segment_id"] for row in shard.rejected)}
    layers, total, dim = shard.shape
    row = dim * shard.dtype.itemsize
    if how != "flip" or not shard.start <= place < shard.start + layers * total * row:
        return names
    owner = np.searchsorted(shard.offset, (place - shard.start) // row % total, side="right") - 1
    return {str(shard.columns["segment_id"][owner])}


def read_all(copy: Path, truth: dict[str, tuple[bytes, ...]]) -> tuple[bool, list[str]]:
    """Read every row at every layer; return whether an error was raised, and all wrong answers."""
    try:
        store = FeatureStore.open(copy)
    except InputError:
        return True, []
    rows, told = store.rows(), False
    refused = {row["segment_id"]: row for row in store.rejected()}
    wrong = [
        f"{name} is rejected"
        for name, row in refused.items()
        if truth.get(name) != (row["code"].encode(), row["message"].encode())
    ]
    for place, name in enumerate(rows["segment_id"].tolist()):
        columns = [values[place].tobytes() for key, values in rows.items() if key != "segment_id"]
        expected = truth.get(name, ())
        if tuple(columns) != expected[: len(columns)]:
            wrong.append(f"columns of {name}")
        for layer, values in zip(store.layers, expected[len(columns) :], strict=True):
            try:
                found = one_layer(store, name, layer)
            except InputError:
                told = True
                continue
            if found != values:
                wrong.append(f"{name} at layer {layer}")
    return told, wrong


def promised(original: Original, file: Path) -> bool:
    """Return whether a changed file alters something that is promised.

    Not promised are a deleted shard's rows (nothing is left that could be wrong) and, in
    store.json, the whitespace and the versions, which are recorded but not compared.
    """
    if not file.exists():
        return False
    if file.name != "store.json":
        return True
    try:
        found = json.loads(file.read_bytes())
        found.pop("versions")
    except (ValueError, KeyError, AttributeError):
        return True
    known = json.loads((original.path / "store.json").read_bytes())
    known.pop("versions")
    return found != known


def repair(original: Original, copy: Path, told: str) -> int:
    """Do what `verify` advised and extract again; return how many rows were extracted."""
    for name in re.findall(rf"^({re.escape(str(copy))}\S*?)(?::|$)", told, re.MULTILINE):
        if Path(name).name == "store.json":
            shutil.copy(original.path / "store.json", name)
        elif Path(name).suffix == ".h5" or Path(name).is_file():
            Path(name).unlink(missing_ok=True)
    done = must(original.again.replace("STORE", str(copy)))
    new = re.search(r"(\d+) of them new", done.out)
    return int(new[1]) if new else len(original.truth)


def _same(original: Original, copy: Path) -> bool:
    try:
        return contents(copy) == original.truth
    except InputError:
        return False


def try_one(
    original: Original, copy: Path, how: str, rng: np.random.Generator
) -> tuple[Counter, list[str]]:
    """Damage a copy once; return what is to be counted, and which promises were not held."""
    file, place = change(copy, how, rng)
    lost = harmed(original, copy, file, how, place)
    matters = promised(original, file)
    verified = typed(f"spk-store verify {copy}")
    named = verified.code == 1 and not verified.trace and str(file) in verified.out + verified.err
    told, wrong = read_all(copy, original.truth)
    broken = [f"read another value of {what}" for what in wrong]
    if matters and not named:
        broken.append(f"verify said {verified.code} {verified.out}{verified.err}{verified.trace}")
    if copy.is_dir():
        before = typed(original.again.replace("STORE", str(copy)))
        if before.trace or (before.code == 1 and str(file) not in before.err):
            broken.append(f"spk-extract said {before.err}{before.trace}")
        new = re.search(r"(\d+) of them new", before.out)
        again = int(new[1]) if new else 0
    else:
        again = 0
    again += repair(original, copy, verified.out + verified.err)
    back = _same(original, copy)
    if not back:
        broken.append("the repaired store is another one")
    rejected = sum(len(values) == 2 for values in (original.truth[name] for name in lost))
    counts = Counter(
        {
            "changed": 1,
            "nothing promised": not matters,
            "found by verify": named,
            "found by read": told,
            "missed": matters and not named,
            "wrong reads": len(wrong),
            "back as it was": back,
        }
    )
    if copy.is_dir():
        counts["rows harmed"] = len(lost) - rejected
        counts["rows extracted again"] = again
        counts["needlessly"] = max(again - counts["rows harmed"], 0)
    return counts, broken


def damage(
    places: int, seed: int, folder: Path, originals: dict[str, Original]
) -> tuple[dict[str, Counter], list[str]]:
    """Damage stores at `places` places; return counts by change, and the broken promises."""
    rng = np.random.default_rng(seed)
    table: dict[str, Counter] = {how: Counter() for how in dict.fromkeys(CHANGES)}
    found: list[str] = []
    for number in range(places):
        how, kind = CHANGES[number % len(CHANGES)], KINDS[number // len(CHANGES) % len(KINDS)]
        if kind == "packed" and how == "delete":
            kind = "frames"  # a packed file that is gone is no store
        original, copy = originals[kind], folder / f"copy-{number}"
        if kind == "packed":
            shutil.copy(original.path, copy)
        else:
            shutil.copytree(original.path, copy)
        counts, broken = try_one(original, copy, how, rng)
        table[how] += counts
        found += [f"place {number}, {how} in a {kind} store: {what}" for what in broken]
        shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
        Path(f"{copy}.rejected.csv").unlink(missing_ok=True)
    return table, found


def show(table: dict[str, Counter]) -> str:
    """Return counts as text, a column per change."""
    width = max(map(len, COLUMNS))
    lines = [" " * width + "".join(f"{how:>9}" for how in (*table, "all"))]
    for name in COLUMNS:
        counts = [counts[name] for counts in table.values()]
        lines.append(f"{name:<{width}}" + "".join(f"{n:>9}" for n in (*counts, sum(counts))))
    return "\n".join(lines)


def main(places: int = 500, seed: int = 1) -> int:
    """Print the counts; return the exit code."""
    with scratch("damage") as folder:
        originals = make_originals(folder, make_corpus(folder / "corpus"))
        table, found = damage(places, seed, folder, originals)
    print(f"damage: {places} places, seed {seed}, stores {', '.join(KINDS)} ({ALONE})")
    print(show(table))
    print("\n".join(f"BROKEN {what}" for what in found) or "no promise broken", flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
