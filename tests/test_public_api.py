"""What ``from spk import manifests, extract, classify, finetune`` gives, and to whom."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = {
    "manifests": "InputError correct_table cut_segments leakage_report make_table read_corrections "
    "read_predictions read_rttm "
    "read_table read_textgrid read_turns read_uem select_segments split_table write_predictions "
    "write_table write_turns write_uem",
    "extract": "Encoder ExtractOptions FeatureStore StoreWriter extract import_vectors "
    "load_encoder",
    "classify": "ExperimentResult SpeakerClassifier SpeakerModel SweepSettings audit compare fit "
    "link load_model measured_threshold predict run_experiment save_model score write_report",
    "finetune": "FinetuneConfig embed finetune load_finetuned predict read_config",
}
EXAMPLE = """\
from spk import manifests, extract, classify, finetune
table = manifests.make_table(manifests.read_rttm("TextGrid"), audio_root="wav")
table = manifests.split_table(manifests.select_segments(table, min_seconds=1.5))
store = extract.extract(table, "features", audio_root="wav", layers=[4, 8])
X = store.read(table.segment_id)                                  # (n, layers, dim)
result = classify.run_experiment(table, store, classifiers=["ridge"])
classify.save_model(classify.fit(table, store, classifiers=["ridge"]), "model")
predictions = classify.predict(classify.load_model("model"), table, store)
classify.score(predictions, table); classify.compare(result.predictions, predictions)
tuned = finetune.finetune(table, preset="transfer", audio_root="wav")
"""
SEEN = """
import numpy as np, pandas as pd
assert X.shape == (len(table), 2, store.dim) and X.dtype == np.float32
assert np.array_equal(X[:, 1], store.read(table.segment_id, layer=8))
assert table.attrs["split"]["method"] == "chronological"
assert list(result.predictions.segment_id) == list(predictions.segment_id)
assert len(predictions) == (table.split == "test").sum() > 0
measured = classify.score(predictions, table)
right = (predictions.predicted == predictions.speaker).mean()
assert measured.value[measured.measure == "accuracy"].iloc[0] == right
assert not classify.compare(result.predictions, predictions).rows.difference.any()
assert set(tuned.predictions.segment_id) >= set(predictions.segment_id)
together = classify.compare(result.predictions, tuned.predictions).rows
assert together.segments.iloc[0] == len(predictions)
assert list(tuned.sessions.session) == sorted(set(table.session))
"""
DEFAULT = "jonatasgrosman/wav2vec2-large-xlsr-53-chinese-zh-cn"


def package(name):
    return importlib.import_module(f"spk.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_a_package_offers_the_documented_names_and_no_other(name):
    found = package(name)
    assert sorted(found.__all__) == sorted(NAMES[name].split())
    assert sorted(set(dir(found))) == sorted(found.__all__)
    for public in found.__all__:
        assert getattr(found, public).__name__ == public
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = found.nothing


@pytest.mark.parametrize("name", NAMES)
def test_a_type_checker_is_told_the_same_names(name):
    tree = ast.parse((ROOT / name / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = [alias.name for node in block.body for alias in node.names]
    assert sorted(told) == sorted(NAMES[name].split())


def test_importing_the_packages_imports_nothing_heavy():
    heavy = ("torch", "pandas", "numpy", "h5py", "sklearn", "lightgbm", "matplotlib", "lightning")
    code = f"import sys; from spk import {', '.join(NAMES)}; "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_type_checker_sees_real_types(tmp_path):
    """As from the wheel: the package lies in a folder of its own, with its py.typed."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "spk").symlink_to(ROOT)
    names = [f"{name}.{public}" for name in NAMES for public in NAMES[name].split()]
    lines = [f"reveal_type({public})" for public in names]
    wrong = "extract.Nothing  # not there\nclassify.score(predictions=3, splitt='test')\n"
    code = f"from spk import {', '.join(NAMES)}\n" + "\n".join(lines) + "\n" + wrong
    (tmp_path / "use.py").write_text(code)
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nfollow_imports = skip\n[mypy-spk.*]\nfollow_imports = silent\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "use.py"]
    environment = {**os.environ, "MYPYPATH": str(tmp_path / "site")}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("use.py")]
    types = [found[1] for line in told if (found := re.search(r'Revealed type is "(.*)"', line))]
    assert len(types) == len(names), done.stdout
    assert [name for name, kind in zip(names, types, strict=True) if kind == "Any"] == []
    assert "spk.extract.store.reader.FeatureStore" in types[names.index("extract.FeatureStore")]
    errors = [line for line in told if ": error:" in line]
    assert [re.search(r'"(Nothing|splitt)"', line)[1] for line in errors] == ["Nothing", "splitt"]


def encoder_in_the_hubs_cache(home):
    """Put a tiny random encoder of nine states where the hub's default would lie."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    folder = home / "hub" / f"models--{DEFAULT.replace('/', '--')}"
    revision = "0123456789" * 4
    snapshot = folder / "snapshots" / revision
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=9,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        conv_bias=True,
        do_stable_layer_norm=True,
        vocab_size=8,
    )
    Wav2Vec2Model(config).eval().save_pretrained(snapshot)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(
        snapshot
    )


def test_the_page_of_python_shows_the_example():
    assert EXAMPLE in (ROOT / "docs" / "reference" / "python.md").read_text()


@pytest.mark.slow
def test_the_example_runs(tmp_path, typed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert typed("spk-manifests demo . --sessions 2 --minutes 2 --speakers 2 --channels 1")
    encoder_in_the_hubs_cache(tmp_path / "home")
    Path("use.py").write_text(EXAMPLE + SEEN)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "use.py"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
