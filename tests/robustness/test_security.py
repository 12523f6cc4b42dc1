"""Files that mean harm are refused with a message and run nothing; nothing reaches the network."""

import ast
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile

from spk.classify import speaker_model_files
from spk.common.errors import InputError
from spk.extract.encoder.checkpoint import find_checkpoint
from spk.extract.store.shard import TRAILER
from spk.extract.store.writer import StoreWriter
from spk.manifests.formats.registry import read_turns
from spk.manifests.table import write_table

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("manifests", "extract", "classify", "finetune")
SECRET = "what nobody but the user should read"


class Harm:
    """Unpickled, it makes the file `harm`."""

    def __reduce__(self):
        return (os.system, ("touch harm",))


@pytest.fixture
def store(told, fuzz):
    """Return a store in the working folder, and a secret beside it."""
    fuzz._make_store(Path("store"))
    Path("secret").write_text(SECRET)
    with h5py.File("secret.h5", "w") as file:
        file["frames"] = np.zeros(3, "<i8")
        file["crc32"] = np.zeros((3, 2), "<u4")
    return Path("store")


def replace(file, name, **how):
    del file[name]
    file.create_dataset(name, **how)


def outside_link(file):
    del file["frames"]
    file["frames"] = h5py.ExternalLink("../../secret.h5", "frames")


def outside_storage(file):
    replace(file, "frames", shape=(3,), dtype="<i8", external=[("../../secret", 0, 24)])


def outside_virtual(file):
    del file["crc32"]
    layout = h5py.VirtualLayout(shape=(3, 2), dtype="<u4")
    layout[:] = h5py.VirtualSource("../../secret.h5", "crc32", shape=(3, 2))
    file.create_virtual_dataset("crc32", layout)


def references(file):
    replace(file, "frames", data=np.array([file.ref] * 3, h5py.ref_dtype), dtype=h5py.ref_dtype)


def objects(file):
    replace(file, "segment_id", data=["a", "b", "c"], dtype=h5py.string_dtype())


def opaque(file):
    replace(file, "frames", data=np.frombuffer(pickle.dumps(Harm())[:24].ljust(24), "V8"))


HOSTILE = {
    outside_link: "an external link at 'frames'",
    outside_storage: "virtual, external or chunked storage at 'frames'",
    outside_virtual: "virtual, external or chunked storage at 'crc32'",
    references: "another type at 'frames'",
    objects: "another type at 'segment_id'",
    opaque: "another type at 'frames'",
}


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_a_forged_shard_is_refused_and_leads_nowhere(store, told, typed, forge, change):
    (shard,) = (store / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[: -TRAILER.size])
    with h5py.File(shard, "r+") as file:
        change(file)
    forge.seal(shard)
    for command in ("info store", "merge store new", "pack store new.h5", "export store new.npz"):
        assert HOSTILE[change] in told(f"spk-store {command}")
    done = typed("spk-store verify store")
    assert (done.exit_code, HOSTILE[change] in done.stdout) == (1, True)
    assert not Path("harm").exists()


def test_the_forger_s_seal_is_a_good_one(store, typed, forge):
    (shard,) = (store / "shards").iterdir()
    shard.write_bytes(shard.read_bytes()[: -TRAILER.size])
    forge.seal(shard)
    assert typed("spk-store verify store").exit_code == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[" * 100_000, "cannot be read (RecursionError"),
        ("[]", "cannot be read (TypeError"),
        ('{"schema": 1, "fingerprint": "x", "configuration": [[1]], "versions": {}}', "TypeError"),
        ('{"schema": 1, "fingerprint": "x", "configuration": {}, "versions": 5}', "TypeError"),
        ('{"schema": 1, "fingerprint": "x", "configuration": {"\\ud800": 1}, "versions": {}}', "U"),
    ],
)
def test_a_hostile_description_of_a_store_is_one_line(store, told, text, found):
    (store / "store.json").write_text(text)
    assert found in told("spk-store info store")


def test_a_configuration_whose_layers_are_lists_is_one_line(store, told, fuzz):
    config = {**fuzz.CONFIG, "layers": [[1], [2]]}
    fuzz._describe(store, json.dumps(config).encode())
    assert "layers are [[1], [2]], expected ascending numbers" in told("spk-store info store")


@pytest.mark.parametrize("command", ["extract", "cut"])
def test_a_lock_that_is_a_link_never_empties_the_file_it_leads_to(store, told, one_row, command):
    """A store or folder unpacked from an archive may hold links to the user's own files."""
    soundfile.write("a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 20000), 16000)
    write_table(one_row(), "t.csv")
    Path("cut").mkdir()
    for name in ("store/lock", "cut/.lock"):
        Path(name).unlink(missing_ok=True)
        os.symlink("../secret", name)
    line = {
        "extract": "spk-extract t.csv store --encoder demo",
        "cut": "spk-manifests cut t.csv cut",
    }
    assert "cannot be written (Too many levels of symbolic links)" in told(line[command])
    assert Path("secret").read_text() == SECRET


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, typed, one_row):
    """Return a folder with a table, a store and a model of LightGBM and of none."""
    import pandas as pd

    root = tmp_path_factory.mktemp("fitted")
    rng = np.random.default_rng(0)
    rows = [
        one_row(segment_id=f"{n}", start=n, end=n + 1, speaker="ab"[n % 2]).assign(
            split=("train", "valid", "test")[n % 3]
        )
        for n in range(90)
    ]
    write_table(pd.concat(rows), root / "t.csv")
    config = {"kind": "pooled", "layers": [0], "dim": 4, "dtype": "float32", "pooling": "mean"}
    with StoreWriter(root / "store", {**config, "encoder": "x", "revision": "y"}) as writer:
        for n in range(90):
            features = rng.normal(size=(1, 4)).astype(np.float32) + n % 2
            writer.add(f"{n}", features, duration=1, frames=9, audio_bytes=9, audio_crc32=n)
    for kind in ("centroid", "lightgbm"):
        words = f"--classifiers {kind} --layers 0 --jobs 1 --pooling-part both"
        done = typed(f"spk-classify fit {root}/t.csv {root}/store {root}/{kind} {words}")
        assert done.exit_code == 0, done.output
    return root


@pytest.fixture
def model(fitted, told):
    """Return a function that copies a model to ``model`` and changes one of its files."""

    def change(kind, name, content):
        shutil.copytree(fitted / kind, "model")
        for what in ("t.csv", "store"):
            os.symlink(fitted / what, what)
        Path("model", name).write_bytes(content)
        if name != "model.json":
            described = json.loads(Path("model/model.json").read_bytes())
            described["sha256"][name] = hashlib.sha256(content).hexdigest()
            Path("model/model.json").write_text(json.dumps(described))
        return told("spk-classify predict model t.csv store p.csv", longest=2000)

    return change


def npz(path, compress=False, **changes):
    with np.load(path) as held:
        arrays = {**held, **changes}
    name = "new.npz"
    (np.savez_compressed if compress else np.savez)(name, **arrays)
    return Path(name).read_bytes()


def test_a_pickle_among_a_models_arrays_is_not_run(model, fitted):
    evil = {"0.mean": np.array([Harm()], dtype=object)}
    content = npz(fitted / "centroid" / "arrays.npz", **evil)
    assert "model: is not a model (" in model("centroid", "arrays.npz", content)
    assert not Path("harm").exists()


def test_arrays_that_grow_when_they_are_read_are_refused(model, fitted):
    content = npz(fitted / "centroid" / "arrays.npz", compress=True)
    assert "compressed array" in model("centroid", "arrays.npz", content)


def test_a_model_file_of_any_size_is_not_read_whole(model, fitted, monkeypatch):
    text = (fitted / "lightgbm" / "0.txt").read_bytes()
    monkeypatch.setattr(speaker_model_files, "LARGEST", len(text) - 1)
    assert f"'0.txt' has over {len(text) - 1} bytes" in model("lightgbm", "0.txt", text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"left_child=", b"left_child=999999999 "),
        (b"num_leaves=", b"num_leaves=999999999 "),
        (b"tree\n", b"tree\n" * 2),
        (b"end of trees\n", b"end of trees\n\npandas_categorical:[]\nparameters:\n"),
    ],
)
def test_a_forged_text_of_trees_never_reaches_lightgbm(model, fitted, monkeypatch, old, new):
    import lightgbm

    monkeypatch.setattr(lightgbm, "Booster", lambda *_, **__: pytest.fail("LightGBM read it"))
    text = (fitted / "lightgbm" / "0.txt").read_bytes().replace(old, new, 1)
    assert "trees: " in model("lightgbm", "0.txt", text)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "a/../../secret"])
def test_a_models_description_names_no_file_outside_its_folder(model, fitted, name):
    described = json.loads((fitted / "centroid" / "model.json").read_bytes())
    described["sha256"][name] = "0" * 64
    content = json.dumps(described).encode()
    told = model("centroid", "model.json", content)
    assert f"file name is {name!r}, expected no folder" in told or "cannot be read (Is a di" in told


@pytest.mark.parametrize("text", [b"[" * 100_000, b"[]", b"{}", b'{"schema": 1}', b"\xff"])
def test_a_description_of_a_model_that_is_none_is_one_line(model, text):
    assert "model: is not a model (" in model("centroid", "model.json", text)


def test_a_checkpoint_s_pickle_is_not_run(told, one_row):
    import torch

    write_table(one_row().assign(split="test"), "t.csv")
    torch.save({"spk": Harm(), "state_dict": {}}, "lightning.ckpt")
    Path("plain.ckpt").write_bytes(pickle.dumps(Harm()))
    for name in ("lightning", "plain"):
        assert "cannot be read (" in told(f"spk-finetune predict {name}.ckpt t.csv p.csv")
    assert not Path("harm").exists()


def test_a_result_of_fine_tuning_names_no_checkpoint_outside_its_folder(told, one_row):
    write_table(one_row().assign(split="test"), "t.csv")
    Path("logs/version_0").mkdir(parents=True)
    result = {"session": "s", "state": "done", "checkpoint": "../../secret.ckpt"}
    Path("logs/version_0/result.json").write_text(json.dumps(result))
    found = told("spk-finetune predict logs t.csv p.csv")
    assert "checkpoint is '../../secret.ckpt', expected a file below logs" in found


@pytest.fixture
def encoder(layer_encoder, tmp_path):
    """Return a copy of a tiny encoder, for changes."""
    return shutil.copytree(layer_encoder, tmp_path / "encoder")


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("value", ["kernels-community/x", "evil/x:run", {"": "evil/x"}, "fa3"])
def test_an_encoder_that_asks_for_compiled_programs_is_refused(encoder, key, value):
    """transformers would fetch such a kernel from the hub and run it."""
    change_json(encoder / "config.json", **{key: value})
    with pytest.raises(InputError, match=f"{key} is .*, expected one of"):
        find_checkpoint(str(encoder))


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "other.safetensors"])
def test_an_index_of_weights_names_only_files_that_are_hashed(encoder, name):
    index = encoder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    find_checkpoint(str(encoder))
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": name}}))
    with pytest.raises(InputError, match="expected files of its folder"):
        find_checkpoint(str(encoder))


def test_weights_of_a_hub_id_are_of_the_commit_that_is_recorded(monkeypatch, encoder):
    import huggingface_hub

    commit, asked = "0123456789" * 4, []
    folder = encoder.rename(encoder.with_name(commit))
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()

    def download(name, *, revision, allow_patterns):
        asked.append(revision)
        if allow_patterns != ["*.json"]:
            weights.write_bytes(content)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_checkpoint("org/name", revision="main").revision == commit
    assert asked == ["main", commit]


def test_a_tuned_model_asks_for_the_encoder_s_recorded_commit(monkeypatch):
    from spk.finetune.model import checkpoint

    known = {"encoder": {"revision": "0123abc"}, "settings": {"pretrained_model": "org/name"}}
    monkeypatch.setattr(checkpoint, "read_checkpoint", lambda _: {"spk": known})
    asked = []

    def load_encoder_parts(name, *, revision, normalize):
        asked.append((name, revision))
        raise InputError("seen")

    monkeypatch.setattr(checkpoint, "load_encoder_parts", load_encoder_parts)
    with pytest.raises(InputError, match="seen"):
        checkpoint.load_finetuned("a.ckpt")
    assert asked == [("org/name", "0123abc")]


BANNED = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "requests"}
BANNED |= {"urllib", "http", "socketserver", "subprocess", "ctypes", "runpy", "code"}
CALLS = {  # function: the keyword it must have
    "load": {"torch": ("weights_only", True), "np": ("allow_pickle", False)},
    "from_pretrained": ("local_files_only", True),
    "write_array": ("allow_pickle", False),
}
BUILTINS = {"eval", "exec", "compile", "__import__"}
NEVER = {"system", "popen", "read_pickle", "to_pickle"}
NEVER |= {"unsafe_load", "full_load", "load_all", "extractall", "hub_load"}


def sources():
    return [(file, ast.parse(file.read_text())) for r in ROOMS for file in (ROOT / r).rglob("*.py")]


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            owner = getattr(node.func, "value", None)
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield getattr(owner, "id", ""), name, {k.arg: k.value for k in node.keywords}, node


HOSTILE_TURNS = {
    "S1.vtt": "WEBVTT\n\n00:01.0 --> 00:02.0\n<v" + "." * 5000 + "\n",
    "S1.srt": " " * 50_000 + "-->\n00:00:01,0 --> 00:00:02,0\n" + "[" * 50_000 + "<" * 50_000,
    "S1.txt": "[" + " " * 50_000 + "-->\n[00:01.0 --> 00:02.0] " + "(speaker " * 5000,
    "S1.json": '{"segments": ' + "[" * 50_000,
    "S1.csv": "file,start,end,speaker\nS1," + "1" * 50_000 + ",2,A\n",
    "S1.eaf": "<ANNOTATION_DOCUMENT>" + "<TIER>" * 50_000,
}


@pytest.mark.parametrize("file", HOSTILE_TURNS)
def test_an_annotation_that_was_made_to_take_long_comes_to_an_end(tmp_path, file):
    (tmp_path / file).write_text(HOSTILE_TURNS[file])
    with suppress(InputError):
        assert read_turns(tmp_path / file).turns == []


def test_entities_of_an_eaf_are_not_resolved(tmp_path):
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    head = f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}<!ENTITY f SYSTEM "file:///etc/passwd">]>'
    path = tmp_path / "S1.eaf"
    path.write_text(f"{head}<ANNOTATION_DOCUMENT>&l9;&f;</ANNOTATION_DOCUMENT>")
    with pytest.raises(InputError, match="has a document type, expected none as ELAN writes"):
        read_turns(path)


def test_commands_in_kaldi_and_lhotse_manifests_are_not_run(tmp_path):
    harm = tmp_path / "harm"
    (tmp_path / "utt2spk").write_text("u A\n")
    (tmp_path / "segments").write_text("u r 0 1\n")
    (tmp_path / "wav.scp").write_text(f"r touch {harm} |\n")
    row = {"id": "r", "sampling_rate": 16000, "sources": [{"type": "command", "source": "x"}]}
    row["sources"][0]["source"] = f"touch {harm}"
    said = {"id": "u", "recording_id": "r", "start": 0, "duration": 1, "speaker": "A"}
    (tmp_path / "recordings.jsonl").write_text(json.dumps(row))
    (tmp_path / "cuts.jsonl").write_text(
        json.dumps({"recording": row, "start": 0, "supervisions": [said]})
    )
    assert len(read_turns(tmp_path, "kaldi").turns) == 1
    read_turns(tmp_path, "lhotse")
    assert not harm.exists()


ALLOWED = {
    "extract/encoder/device.py": {"ctypes"},
    "extract/pipeline/unit_run.py": {"pickle"},
    "extract/pipeline/unit_worker.py": {"pickle"},
    "finetune/training/many_machines.py": {"pickle"},
}


@pytest.mark.slow
def test_no_module_imports_what_runs_or_unpickles():
    for file, tree in sources():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            found = {name.split(".")[0] for name in names} & BANNED
            # The C library's own malloc is told how to work; no file names what is loaded there.
            # A run's own first process sends its workers what they need, as Ray would, pickled.
            allowed = ALLOWED.get(file.relative_to(ROOT).as_posix(), set())
            assert not found - allowed, (file, node.lineno)


def test_nothing_that_is_called_runs_a_file_s_content():
    seen = set()
    for file, tree in sources():
        for owner, name, given, node in calls(tree):
            bare = isinstance(node.func, ast.Name)
            assert name not in (BUILTINS if bare else NEVER), (file, node.lineno)
            assert (owner, name) != ("joblib", "load"), (file, node.lineno)
            rule = CALLS.get(name, {})
            rule = rule.get(owner) if isinstance(rule, dict) else rule
            if rule:
                seen.add(name)
                value = given.get(rule[0])
                assert isinstance(value, ast.Constant), (file, node.lineno)
                assert value.value is rule[1], (file, node.lineno)
            if "trust_remote_code" in given:
                assert given["trust_remote_code"].value is False, (file, node.lineno)
            if owner == "yaml" and name in ("load", "compose"):
                assert given["Loader"].attr == "SafeLoader", (file, node.lineno)
    assert seen == set(CALLS)


OFFLINE = """
import os, sys
asked = []
def watch(event, values):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname"):
        asked.append((event, str(values)))
        raise OSError("there is no network in this test")
sys.addaudithook(watch)
from click.testing import CliRunner
from spk.manifests.cli import main as manifests
from spk.extract.cli import main as extract
from spk.extract.store.cli import store
from spk.classify.cli import main as classify
from spk.finetune.cli import main as finetune
def run(command, line):
    done = CliRunner().invoke(command, line.split())
    if done.exit_code:
        sys.exit(f"{line}: {done.output} {done.exception!r}")
run(manifests, "demo corpus --sessions 1 --minutes 1 --speakers 2 --channels 1")
run(manifests, "textgrid corpus/TextGrid turns.csv --audio-root corpus/wav")
run(manifests, "describe turns.csv")
run(manifests, "split turns.csv table.csv --gap 0 --test-share 0.3 --valid-share 0.3")
run(extract, "table.csv features --audio-root corpus/wav --encoder demo --layers 0,5")
run(store, "info features")
run(store, "verify features --table table.csv --audio corpus/wav")
run(classify, "sweep table.csv features sweep --classifiers centroid,ridge --jobs 1")
run(classify, "fit table.csv features model --classifiers centroid --layers 5 --jobs 1")
run(classify, "predict model table.csv features predictions.csv")
run(classify, "score predictions.csv --table table.csv --resamples 10")
run(finetune, "fit table.csv --audio-root corpus/wav --log-dir fleet --encoder demo "
    "--max-epochs 1 --freeze-encoder-layers 4 --cache-prefix")
run(finetune, "predict fleet table.csv tuned.csv --audio-root corpus/wav")
print(asked)
try:
    import socket
    socket.create_connection(("example.org", 80))
except OSError as problem:
    print(problem)
"""


@pytest.mark.slow
def test_nothing_but_the_download_of_an_encoder_asks_for_the_network(tmp_path):
    """Every way out is closed, and no setting tells the hub to stay offline."""
    unset = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    words = [sys.executable, "-c", OFFLINE]
    done = subprocess.run(
        words, check=False, cwd=tmp_path, env=unset, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "there is no network in this test"]
