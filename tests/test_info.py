"""`spk info` tells what a bug report needs, and nothing that is nobody's business."""

import fcntl
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import spk
from spk.common import environment
from spk.common.environment import devices, extras, folder_facts, packages, variables
from spk.common.errors import InputError
from spk.extract.encoder.checkpoint import in_hub_cache
from spk.extract.options import DEFAULT_ENCODER
from spk.info import info

SECTIONS = ["spk", "packages", "extras", "devices", "encoder cache", "variables", "folder"]


def told(*words, **variables):
    done = CliRunner().invoke(info, list(words), env=variables)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout


def test_json_and_text_hold_the_same_facts(tmp_path):
    facts = json.loads(told(str(tmp_path), "--json"))
    lines = told(str(tmp_path)).splitlines()
    assert list(facts) == SECTIONS
    assert [line[:-1] for line in lines if not line.startswith(" ")] == SECTIONS
    for values in facts.values():
        for name in values.keys() - {"memory", "free"}:
            assert f"  {name}: {values[name]}" in lines
    assert facts["spk"]["version"] == spk.__version__
    assert facts["spk"]["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert facts["encoder cache"]["small"] == "ships with spk"


def test_nothing_secret_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = {
        "HF_TOKEN": "hf_abc",
        "AWS_SECRET_ACCESS_KEY": "abc",
        "SPK_EXTRACT_AUDIO_ROOT": f"{tmp_path}/wav",
        "SPK_SOME_TOKEN": "hf_abc",
        "SPK_FINETUNE_FIT_ENCODER": "https://ann:hf_abc@example.org/enc",
    }
    text = told(str(tmp_path), **words)
    assert "abc" not in text
    assert str(tmp_path) not in text
    assert "  SPK_EXTRACT_AUDIO_ROOT: ~/wav\n" in text
    assert "  SPK_SOME_TOKEN: (set)\n" in text
    assert "  path: ~\n" in text


def test_variables_are_ours_and_those_that_change_a_run():
    assert variables({"PATH": "/bin", "SPK_DATA": "d", "CUDA_VISIBLE_DEVICES": ""}) == {
        "SPK_DATA": "d",
        "CUDA_VISIBLE_DEVICES": "",
    }


def test_packages_are_those_of_users_with_their_versions():
    import numpy

    versions = packages()
    assert versions["numpy"] == numpy.__version__
    assert {"torch", "lightgbm", "click"} <= versions.keys()
    assert not {"pytest", "mkdocs-material", "ruff"} & versions.keys()


def test_an_extra_says_what_it_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert extras()["finetune"] == "lacks tensorboard, yaml"
    assert extras()["extract"] == "yes"


def test_gpus_are_told_by_name_and_memory(monkeypatch):
    card = SimpleNamespace(name="NVIDIA H200", total_memory=139 * 2**30)
    cuda = SimpleNamespace(device_count=lambda: 1, get_device_properties=lambda number: card)
    torch = SimpleNamespace(__version__="2.9", version=SimpleNamespace(cuda="12.8"), cuda=cuda)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert devices() == {
        "torch": "2.9, built for CUDA 12.8",
        "cuda:0": "NVIDIA H200, 139.0 GiB",
    }
    cuda.device_count = lambda: 0
    assert devices()["cuda"] == "no GPU"


def test_a_torch_that_is_broken_or_absent_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__="2.9"))
    assert devices()["torch"].startswith("cannot be used: AttributeError: ")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert devices() == {"torch": "not installed"}


def test_locks_are_tried_in_the_folder_and_leave_nothing(tmp_path, monkeypatch):
    assert folder_facts(tmp_path)["locks"] == "work"
    assert not os.listdir(tmp_path)
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)  # as a file system that only pretends
    assert folder_facts(tmp_path)["locks"].startswith("do not work: one file is locked twice")

    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert folder_facts(tmp_path)["locks"] == "not tried, or refused: No locks available"
    assert not os.listdir(tmp_path)


def test_the_file_system_is_that_of_the_nearest_mount(monkeypatch):
    mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /data/net rw,x shared:1 - nfs4 host:/ rw\n"
    monkeypatch.setattr(environment, "_text", lambda path: mounts)
    assert environment._file_system(Path("/data/net/corpus")) == "nfs4"
    assert environment._file_system(Path("/data/other")) == "ext4"


def test_a_folder_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="nowhere: is no folder, expected one; name"):
        folder_facts("nowhere")


def test_an_encoder_in_the_hub_s_cache_is_found_without_a_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert not in_hub_cache(DEFAULT_ENCODER)
    repository = tmp_path / f"models--{DEFAULT_ENCODER.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text("{}")
    assert not in_hub_cache(DEFAULT_ENCODER)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert in_hub_cache(DEFAULT_ENCODER)
