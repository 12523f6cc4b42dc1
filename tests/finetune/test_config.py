"""A run's settings: read as written, checked each and together."""

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import REFERENCE_CONFIG
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spk.common.errors import InputError
from spk.common.options import numbers
from spk.finetune.config import FinetuneConfig, frozen_layers, read_config, write_config
from spk.finetune.training.provenance import differing_settings, result_settings

CHANGED = {  # another value of every setting that has more than one
    "within": "corpus",
    "seed": 7,
    "max_epochs": 3,
    "patience": None,
    "batch_size": 4,
    "batch_seconds": 12.5,
    "accumulate": 2,
    "crop_seconds": 3.0,
    "workers": 2,
    "csv_path": "a b/表.csv",
    "audio_root": "/audio",
    "sample_rate": 8000,
    "channel": "mean",
    "resample": True,
    "encoder": "true",  # names that YAML would take for something else
    "revision": "0010",
    "normalize": "no",
    "freeze_feature_extractor": False,
    "freeze_encoder_layers": 0,
    "states": "12",
    "mask_seconds": 0.1,
    "mask_dims": 0.1,
    "pooling_method": "attentive",
    "head": "linear",
    "head_size": 8,
    "dropout": 0.1,
    "loss": "aam",
    "margin": 0.3,
    "scale": 1e-7,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "learning_rate": 1.2345678901234567e-05,
    "head_learning_rate": 1e-3,
    "layer_decay": 0.9,
    "weight_decay": 0.0,
    "lr_step": 1,
    "lr_gamma": 0.5,
    "gradient_clip": 0.0,
    "speed_prob": 0.5,
    "speed_factors": "0.8,1.0,1.2",
    "noise_prob": 0.5,
    "noise_dir": "none",
    "noise_snr": "0,10",
    "noise_color": "white",
    "reverb_prob": 0.5,
    "reverb_dir": "rooms",
    "reverb_seconds": "0.1,0.2",
    "gain_prob": 0.5,
    "gain_db": "-3,3",
    "channel_prob": 0.5,
    "checkpoint_monitor": "val_loss",
    "checkpoint_mode": "min",
    "checkpoint_save_top_k": -1,
    "checkpoint_dir": "kept",
    "log_dir": "logs",
    "keep_encoder": True,
    "keep_last": False,
    "resume_from_checkpoint": "runs/last.ckpt",
    "start_meeting": "20200709",
    "sessions": ("001", "M, 2"),
    "shard": "2/3",
    "accelerator": "cpu",
    "devices": 2,
    "workers_per_device": 2,
    "dtype": "float32",
    "gradient_checkpointing": True,
    "cache_prefix": True,
    "engine": "ray",
    "ray_address": "10.0.0.1:6379",
}


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_references_file_is_read_unchanged(tmp_path):
    expected = FinetuneConfig(
        seed=42,
        batch_size=2,
        learning_rate=0.00003,
        workers=4,
        csv_path="data/data_fixed.csv",
        sample_rate=16000,
        resume_from_checkpoint=False,
        accelerator="gpu",
    )
    config = read_config(written(tmp_path, REFERENCE_CONFIG))
    assert config == expected
    assert type(config.learning_rate) is float


@pytest.mark.parametrize(
    ("former", "name", "value"),
    [
        ("pretrained_model", "encoder", "demo"),
        ("precision", "dtype", "float32"),
        ("num_workers", "workers", 3),
    ],
)
def test_a_key_of_before_stands_for_the_one_of_today(tmp_path, former, name, value):
    config = read_config(written(tmp_path, f"{former}: {value}\n"))
    assert config == FinetuneConfig(**{name: value})
    write_config(config, tmp_path / "config.yaml")
    assert former not in (tmp_path / "config.yaml").read_text()
    with pytest.raises(InputError, match=f"key '{name}' is given twice"):
        read_config(written(tmp_path, f"{former}: {value}\n{name}: {value}\n"))


def test_a_key_without_effect_is_read_and_forgotten(tmp_path):
    config = read_config(written(tmp_path, "log_every_n_steps: 3\n"))
    assert config == FinetuneConfig()
    assert not hasattr(config, "log_every_n_steps")


def test_settings_that_an_earlier_version_noted_are_compared_by_their_names_of_today():
    old = {"pretrained_model": "encoder", "precision": "float32", "log_every_n_steps": 10}
    assert differing_settings(old, FinetuneConfig(encoder="there/encoder", dtype="float32")) == []
    assert differing_settings(old, FinetuneConfig(encoder="other")) == ["encoder", "dtype"]


def test_no_source_means_the_defaults():
    assert read_config(None) == FinetuneConfig()


def test_what_is_written_is_read_again(tmp_path):
    config = FinetuneConfig(**CHANGED)
    for made in (
        config,
        FinetuneConfig(),
        FinetuneConfig(unfreeze="3:4,6:0", freeze_encoder_layers="all"),
    ):
        write_config(made, tmp_path / "a.yaml")
        assert read_config(tmp_path / "a.yaml") == made
    assert [*yaml.safe_load((tmp_path / "a.yaml").read_text())] == [
        field.name for field in dataclasses.fields(FinetuneConfig)
    ]


def test_every_setting_is_changed_above_but_the_one_that_would_contradict():
    names = {field.name for field in dataclasses.fields(FinetuneConfig)}
    assert names - CHANGED.keys() == {"unfreeze"}
    same = [name for name, value in CHANGED.items() if value == getattr(FinetuneConfig(), name)]
    assert same == []


def test_every_setting_has_a_help_text_and_its_default_is_a_choice():
    for field in dataclasses.fields(FinetuneConfig):
        assert field.metadata["help"].endswith("."), field.name
        assert not field.metadata["choices"] or field.default in (None, *field.metadata["choices"])


def test_transfer_is_the_references_session_trainer():
    assert read_config("transfer") == FinetuneConfig(
        seed=42,
        within="session",
        freeze_encoder_layers=8,
        pooling_method="mean+std",
        head="mlp",
        max_epochs=20,
        patience=3,
        learning_rate=3e-5,
        head_learning_rate=1e-3,
        batch_size=8,
    )


def test_baseline_trains_a_linear_head_alone():
    assert read_config("baseline") == FinetuneConfig(
        seed=42,
        within="corpus",
        freeze_encoder_layers="all",
        pooling_method="mean",
        head="linear",
        max_epochs=10,
        patience=None,
        learning_rate=1e-4,
        head_learning_rate=1e-3,
        batch_size=8,
    )


def test_a_file_wins_over_a_preset_only_with_a_suffix_or_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("transfer", "transfer.yaml"):
        Path(name).write_text("seed: 5\n")
    assert read_config("transfer").seed == 42
    assert read_config("transfer.yaml").seed == 5
    assert read_config(f".{os.sep}transfer").seed == 5


def test_what_is_given_wins_over_the_file(tmp_path):
    path = written(tmp_path, "seed: 5\nmax_epochs: 2\n")
    assert read_config(path, {"seed": 6}) == FinetuneConfig(seed=6, max_epochs=2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning_rate: 3e-5", {"learning_rate": 0.00003}),
        ("learning_rate: '.5'", {"learning_rate": 0.5}),
        ("batch_seconds: 40", {"batch_seconds": 40.0}),
        ("patience: none", {"patience": None}),
        ("patience: null", {"patience": None}),
        ("patience:", {"patience": None}),
        ("csv_path: ''", {"csv_path": None}),
        ("csv_path: none", {"csv_path": "none"}),
        ("sessions: [001, 2020-07-09]", {"sessions": ("001", "2020-07-09")}),
        ("sessions: A, B", {"sessions": ("A", "B")}),
        ("sessions: ''", {"sessions": ()}),
        ("start_meeting: 001", {"start_meeting": "001"}),
        ("sessions: ' Bu\u0308ro ,Pie\u0301'", {"sessions": ("B\u00fcro", "Pi\u00e9")}),
        ("start_meeting: ' Bu\u0308ro'", {"start_meeting": "B\u00fcro"}),
        ("states: 12", {"states": "12"}),
        ("resample: yes", {"resample": True}),
        ("resume_from_checkpoint: 'false'", {"resume_from_checkpoint": False}),
        ("resume_from_checkpoint: a/b.ckpt", {"resume_from_checkpoint": "a/b.ckpt"}),
        ("freeze_encoder_layers: all", {"freeze_encoder_layers": "all"}),
        ("accelerator: cuda", {"accelerator": "gpu"}),
    ],
)
def test_a_value_takes_the_type_of_its_setting(tmp_path, text, expected):
    config = read_config(written(tmp_path, text + "\n"))
    found = {name: getattr(config, name) for name in expected}
    assert found == expected
    assert config == FinetuneConfig(**expected)
    assert [type(value) for value in found.values()] == [type(v) for v in expected.values()]


OWN_NONE = ("patience", "batch_size", "crop_seconds", "csv_path", "sample_rate", "revision")
OWN_NONE += ("head_learning_rate", "noise_dir", "reverb_dir")


@pytest.mark.parametrize("word", ["null", "~", ""])
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(FinetuneConfig)])
def test_null_means_not_set(tmp_path, name, word):
    config = read_config(written(tmp_path, f"{name}: {word}\n"))
    expected = None if name in OWN_NONE else getattr(FinetuneConfig(), name)
    assert getattr(config, name) == expected
    assert (
        dataclasses.replace(config, **{name: getattr(FinetuneConfig(), name)}) == FinetuneConfig()
    )


def test_nulls_in_the_references_file_are_not_set(tmp_path):
    text = REFERENCE_CONFIG.replace('start_meeting: ""', "start_meeting: null")
    text = text.replace("resume_from_checkpoint: false   # true / false", "resume_from_checkpoint:")
    config = read_config(written(tmp_path, text + "unfreeze: ~\n"))
    assert (config.start_meeting, config.resume_from_checkpoint, config.unfreeze) == ("", True, "")


def test_a_misspelt_key_is_told_with_the_one_it_resembles(tmp_path):
    path = written(tmp_path, "freze_encoder_layers: 8\n")
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert str(caught.value) == (
        f"{path}: key 'freze_encoder_layers' is unknown, expected one of the known ones; "
        "did you mean 'freeze_encoder_layers'?"
    )


def test_a_misspelt_option_is_refused():
    with pytest.raises(InputError, match="option 'sead' is unknown.*did you mean 'seed'"):
        read_config(None, {"sead": 1})


def test_a_wrong_value_is_told_where_it_was_given(tmp_path):
    path = written(tmp_path, "max_epochs: 0\n")
    for where, call in (
        (f"{path}: max_epochs is '0'", lambda: read_config(path)),
        ("--max-epochs: value is 0", lambda: read_config(path, {"max_epochs": 0})),
        ("--max-epochs: value is 0", lambda: FinetuneConfig(max_epochs=0)),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == f"{where}, expected a whole number from 1; correct it"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("within", "meeting", "one of ['session', 'corpus']"),
        ("seed", -1, "a whole number from 0 up to 4294967295"),
        ("seed", True, "a whole number"),
        ("seed", 1.5, "a whole number"),
        ("seed", "٣", "a whole number"),
        ("patience", 0, "a whole number from 1, or none"),
        ("batch_size", 0, "a whole number from 1, or none"),
        ("batch_seconds", 0.0, "a number above 0"),
        ("batch_seconds", math.inf, "a number above 0"),
        ("batch_seconds", math.nan, "a number above 0"),
        ("batch_seconds", "1e999", "a number above 0"),
        ("batch_seconds", "1:30", "a number above 0"),
        ("workers", -1, "a whole number from 0"),
        ("audio_root", "", "text"),
        ("audio_root", "a\0b", "text"),
        ("channel", "-1", "an index from 0 or 'mean'"),
        ("resample", "yes", "true or false"),
        ("resample", 1, "true or false"),
        ("encoder", True, "text"),
        ("freeze_encoder_layers", "some", "a whole number from 0, or all"),
        ("freeze_encoder_layers", -1, "a whole number from 0, or all"),
        ("unfreeze", "3", "EPOCH:LAYERS,..."),
        ("unfreeze", "0:4", "EPOCH:LAYERS,..."),
        ("unfreeze", "3:4,3:0", "EPOCH:LAYERS,..."),
        ("unfreeze", "3:4,5:4", "EPOCH:LAYERS,..."),
        ("unfreeze", "3:-1", "EPOCH:LAYERS,..."),
        ("unfreeze", "3:8", "fewer layers than freeze_encoder_layers, 8"),
        ("unfreeze", "3:4,40:0", "epochs up to 39, the last (from 0) of max_epochs 40"),
        ("noise_dir", "noise", "none beside noise_prob 0, with which nothing is taken from it"),
        ("reverb_dir", "rooms", "none beside reverb_prob 0, with which nothing is taken from it"),
        ("states", "first", "last, mix or a state's number from 0"),
        ("mask_dims", 1.1, "a number from 0.0 up to 1.0"),
        ("dropout", 1.0, "a number from 0, below 1"),
        ("learning_rate", 0, "a number above 0 up to 1"),
        ("learning_rate", 3e5, "a number above 0 up to 1"),
        ("head_learning_rate", "fast", "a number above 0 up to 1, or none"),
        ("speed_factors", "0.9,", "numbers from 0.5 to 2"),
        ("speed_factors", "0.1", "numbers from 0.5 to 2"),
        ("noise_snr", "20,5", "two numbers from -60 to 60, the lower first"),
        ("noise_snr", "5", "two numbers from -60 to 60, the lower first"),
        ("noise_snr", "1,2,3", "two numbers from -60 to 60, the lower first"),
        ("gain_db", "-600,6", "two numbers from -60 to 60, the lower first"),
        ("reverb_seconds", "0,1", "two numbers from 0.01 to 10, the lower first"),
        ("checkpoint_mode", "min", "max for val_acc"),
        ("checkpoint_monitor", "val_f1", "one of ['val_acc', 'val_loss']"),
        ("checkpoint_save_top_k", 0, "a whole number from 1, or -1 for all"),
        ("checkpoint_save_top_k", -2, "a whole number from 1, or -1 for all"),
        ("resume_from_checkpoint", "", "true, false or a path"),
        ("sessions", ("A", "A"), "a list of names, each once"),
        ("sessions", ("B\u00fcro", "Bu\u0308ro"), "a list of names, each once"),
        ("sessions", "A,,B", "a list of names, each once"),
        ("sessions", False, "a list of names, each once"),
        ("shard", "4/3", "i/n with i from 1 to n"),
        ("accelerator", "tpu", "one of ['auto', 'cpu', 'gpu', 'cuda']"),
        ("dtype", "16", "one of ['auto', 'float32', 'bfloat16']"),
    ],
)
def test_a_wrong_value_is_refused(name, value, expected):
    with pytest.raises(InputError) as caught:
        FinetuneConfig(**{name: value})
    assert str(caught.value).startswith(f"--{name.replace('_', '-')}: value is ")
    assert f", expected {expected}" in str(caught.value)


def test_val_loss_is_better_when_smaller():
    assert FinetuneConfig().checkpoint_mode == "max"
    config = FinetuneConfig(checkpoint_monitor="val_loss")
    assert config.checkpoint_mode == "min"
    assert config == FinetuneConfig(checkpoint_monitor="val_loss", checkpoint_mode="min")
    with pytest.raises(InputError, match="--checkpoint-mode: value is 'max', expected min for"):
        FinetuneConfig(checkpoint_monitor="val_loss", checkpoint_mode="max")


def test_convolutions_are_not_trained_through_frozen_layers():
    with pytest.raises(InputError) as caught:
        FinetuneConfig(freeze_feature_extractor=False)
    assert str(caught.value) == (
        "--freeze-feature-extractor: value is false, expected true beside freeze_encoder_layers 8, "
        "since what lies below frozen layers would train through them; set freeze_encoder_layers "
        "to 0"
    )
    assert FinetuneConfig(freeze_feature_extractor=False, freeze_encoder_layers=0).states == "last"


def test_layers_may_open_in_the_last_epoch_and_not_after_it(tmp_path):
    assert FinetuneConfig(unfreeze="3:4,6:0", max_epochs=7).max_epochs == 7
    path = written(tmp_path, "unfreeze: 3:4,6:0\nmax_epochs: 6\n")
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert str(caught.value) == (
        f"{path}: unfreeze is '3:4,6:0', expected epochs up to 5, the last (from 0) of max_epochs "
        "6; leave out the later steps"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "content is nothing"),
        ("# seed: 1\n", "content is nothing"),
        ("- seed\n", "content is a sequence"),
        ("seed\n", "content is a scalar"),
        ("seed: 1\nmax_epochs: 2\nseed: 1\n", "key 'seed' is given twice, .* in line 3"),
        ("seed: [1\n", "line 2: cannot be read"),
        ("seed: 1\n---\nseed: 2\n", "line 2: cannot be read .*a single document"),
        ('log_dir: "\\UFFFFFFFF"\n', "cannot be read"),
        ("[" * 5000, "cannot be read"),
        ("seed: {a: 1}\n", "seed is a mapping"),
        ("sessions: [[A]]\n", "sessions is a nested list"),
        ("sessions: &a [*a]\n", "sessions is a nested list"),
        ("sessions: [{A: B}]\n", "sessions is a nested list"),
        ("seed: [1]\n", "seed is a list of 1"),
        ("? [a]\n: 1\n", "key is a sequence"),
        ("<<: {seed: 1}\n", "key '<<' is unknown"),
        ("seed: !!binary aGk=\n", "seed is a value with the tag"),
        ("resample: !!bool maybe\n", "resample is a value with the tag"),
        ("resample: 'true'\n", "resample is 'true', expected true or false"),
        ("log_dir: no\n", "log_dir is false, expected text"),
        ("seed: 0x10\n", "seed is '0x10', expected a whole number"),
    ],
)
def test_what_is_no_file_of_settings_is_refused(tmp_path, text, found):
    with pytest.raises(InputError, match=f"config.yaml(: |, ){found}"):
        read_config(written(tmp_path, text))


def test_a_tag_builds_no_object(tmp_path):
    trace = tmp_path / "trace"
    for tag in ("python/object/apply", "python/object/new"):
        path = written(tmp_path, f"log_dir: !!{tag}:os.mkdir ['{trace}']\n")
        with pytest.raises(InputError, match=f"log_dir is a value with the tag '.*{tag}:os.mkdir'"):
            read_config(path)
    assert not trace.exists()


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(InputError, match=r"no such file.*\['baseline', 'transfer'\]; name one"):
        read_config("transfr")
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path)
    large = written(tmp_path, "#" * 1_000_001)
    with pytest.raises(InputError, match="size is over 1000000 bytes"):
        read_config(large)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\x00\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "binary.yaml")


def test_a_long_value_is_not_told_at_length():
    with pytest.raises(InputError) as caught:
        FinetuneConfig(within="x" * 10_000)
    assert len(str(caught.value)) < 200


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text()
    | st.tuples(
        st.sampled_from([field.name for field in dataclasses.fields(FinetuneConfig)]), st.text()
    ).map(": ".join)
)
def test_any_text_gives_settings_or_an_input_error(tmp_path, text):
    path = tmp_path / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config = read_config(path)
    except InputError:
        return
    write_config(config, tmp_path / "again.yaml")
    assert read_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("layers", "unfreeze", "expected"),
    [
        (8, "", [8, 8, 8]),
        (0, "", [0, 0, 0]),
        ("all", "", [12, 12, 12]),
        (8, "1:4,2:0", [8, 4, 0]),
        ("all", "2:11", [12, 12, 11]),
    ],
)
def test_layers_thaw_at_their_epochs(layers, unfreeze, expected):
    config = FinetuneConfig(freeze_encoder_layers=layers, unfreeze=unfreeze)
    assert [frozen_layers(config, epoch, 12) for epoch in range(3)] == expected


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (
            {"freeze_encoder_layers": 13},
            "--freeze-encoder-layers: value is 13, expected at most 12",
        ),
        (
            {"freeze_encoder_layers": "all", "unfreeze": "1:12"},
            "--unfreeze: value is '1:12', expected fewer than 12",
        ),
    ],
)
def test_no_more_layers_are_frozen_than_there_are(settings, found):
    with pytest.raises(InputError, match=found):
        frozen_layers(FinetuneConfig(**settings), 0, 12)
    assert frozen_layers(FinetuneConfig(freeze_encoder_layers=12), 0, 12) == 12


def test_only_settings_that_change_results_count_as_differences():
    free = "workers csv_path audio_root checkpoint_save_top_k checkpoint_dir "
    free += "log_dir keep_encoder resume_from_checkpoint start_meeting sessions shard devices "
    free += "workers_per_device cache_prefix keep_last engine ray_address "
    free += "revision"  # is in the hashes
    assert differing_settings(result_settings(FinetuneConfig()), FinetuneConfig(**CHANGED)) == [
        *(name for name in CHANGED if name not in free.split()),
        "devices",  # of one model
    ]
    moved = FinetuneConfig(encoder="/elsewhere/encoder", max_epochs=41)
    assert differing_settings(result_settings(FinetuneConfig(encoder="there/encoder")), moved) == []
    assert differing_settings({"seed": 0}, FinetuneConfig(max_epochs=39)) == ["max_epochs"]
    assert differing_settings(
        result_settings(FinetuneConfig()), FinetuneConfig(unfreeze="1:0")
    ) == ["unfreeze"]
    assert differing_settings(result_settings(FinetuneConfig()), FinetuneConfig()) == []


def test_numbers_are_read_from_a_text():
    assert numbers("-6, 6") == (-6.0, 6.0)
    for text in ("nan", "1e999", "", "1,,2"):
        with pytest.raises(ValueError):  # noqa: PT011 (a parse says only that it is one)
            numbers(text)


def test_the_module_imports_neither_yaml_nor_anything_heavy():
    heavy = ("yaml", "numpy", "pandas", "torch", "lightning")
    code = f"import sys, spk.finetune.config; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
