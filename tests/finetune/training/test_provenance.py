"""What a folder is of: another table, other recordings, another encoder are refused by name."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from spk.common.errors import InputError
from spk.finetune.config import FinetuneConfig
from spk.finetune.run import train_table
from spk.finetune.training import provenance
from spk.finetune.training.session_result import checkpoint_path, read_result, safe_filename


@pytest.fixture(scope="module")
def settings(meetings):
    return FinetuneConfig(
        encoder="demo",
        audio_root=str(meetings[0]),
        freeze_encoder_layers="all",
        head="linear",
        learning_rate=1e-3,
        max_epochs=1,
        accelerator="cpu",
    )


@pytest.fixture(scope="module")
def finished(meetings, settings, tmp_path_factory):
    """Return the settings of a finished fleet."""
    config = replace(settings, log_dir=str(tmp_path_factory.mktemp("finished") / "logs"))
    assert train_table(meetings[1], config).sessions["state"].tolist() == ["done", "done"]
    return config


@pytest.fixture
def fleet(finished, tmp_path):
    """Return the settings of a copy of it."""
    shutil.copytree(finished.log_dir, tmp_path / "logs")
    return replace(finished, log_dir=str(tmp_path / "logs"))


def changed(table, column, value, rows=(0,)):
    table = table.copy()
    table.loc[list(rows), column] = value
    return table


def shifted(table):
    table = table.copy()
    table.loc[[2, 4], ["start", "end"]] += 0.05
    return table


OTHERS = {
    "another label": (
        lambda table: changed(table, "speaker", "b", (0, 3)),
        "version_0: was trained on 24 rows, 2 of which have another speaker in this table, first "
        "'M1_a_00'",
    ),
    "another split": (
        lambda table: changed(table, "split", "train", (18, 19, 20)),
        "3 of which have another split in this table, first 'M1_a_18'",
    ),
    "other times": (shifted, "2 of which have another start in this table, first 'M1_c_02'"),
    "fewer rows": (
        lambda table: table.drop(index=[1]).reset_index(drop=True),
        "1 of which are not in this table, first 'M1_b_01'",
    ),
    "more rows": (
        lambda table: pd.concat([table, table.iloc[:1].assign(segment_id="new")]),
        "24 rows, the table has 1 more, first 'new'",
    ),
    "another file": (
        lambda table: changed(table, "audio", "M2.wav"),
        "1 of which have another audio file in this table",
    ),
    "another channel": (
        lambda table: table.assign(channel=["", "", "", "1", *[""] * 44]),
        "1 of which have another channel in this table, first 'M1_a_03'",
    ),
    "a purged row": (
        lambda table: changed(table, "split", "", (5,)),
        "1 of which are not in this table, first 'M1_c_05'",
    ),
    "another meeting before": (
        lambda table: pd.concat(
            [table.assign(session="M0", segment_id="M0" + table["segment_id"]).iloc[:24], table]
        ),
        "version_0: is of session 'M1', expected one of this table, whose session 0 is 'M0'",
    ),
    "one meeting less": (
        lambda table: table[table["session"] == "M1"],
        "version_1: is of session 'M2', expected one of this table, whose 1 session is",
    ),
    "a meeting that cannot be trained": (
        lambda table: changed(table, "split", "test", range(15)),
        "'M1' was trained there, expected rows that can be trained, but the table's cannot (no "
        "train segments",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_finished_folder_answers_for_its_own_table_alone(meetings, finished, kind):
    make, expected = OTHERS[kind]
    before = Path(finished.log_dir, "sessions.csv").read_bytes()
    with pytest.raises(InputError) as told:
        train_table(make(meetings[1]).reset_index(drop=True), finished)
    assert expected in str(told.value)
    assert "--log-dir" in str(told.value)
    assert Path(finished.log_dir, "sessions.csv").read_bytes() == before


@pytest.mark.parametrize("kind", ["another label", "another meeting before"])
def test_one_session_asked_for_does_not_hide_the_others(meetings, finished, kind):
    table = OTHERS[kind][0](meetings[1]).reset_index(drop=True)
    with pytest.raises(InputError, match="version_0: "):
        train_table(table, replace(finished, sessions=("M2",)))


def test_the_order_of_rows_matters_only_to_what_is_to_go_on(meetings, fleet):
    table = meetings[1].iloc[::-1].reset_index(drop=True)
    assert train_table(table, fleet).sessions["state"].tolist() == ["done", "done"]
    (Path(fleet.log_dir) / "version_1" / "result.json").unlink()
    with pytest.raises(InputError, match="version_1: .* which the table has in another order"):
        train_table(table, fleet)


def test_other_audio_under_the_same_name_is_refused(meetings, fleet, tmp_path):
    audio = tmp_path / "audio"
    shutil.copytree(meetings[0], audio)
    moved = replace(fleet, audio_root=str(audio))
    assert train_table(meetings[1], moved).sessions["state"].tolist() == ["done", "done"]
    content = bytearray((audio / "M2.wav").read_bytes())
    content[-1] ^= 1
    (audio / "M2.wav").write_bytes(content)
    os.utime(audio / "M2.wav", ns=(0, 0))  # whatever the clock says
    with pytest.raises(InputError, match=r"version_1: 1 recording has other content .*'M2.wav'"):
        train_table(meetings[1], moved)
    (audio / "M2.wav").unlink()
    told = []
    assert train_table(meetings[1], moved, warn=told.append).sessions["state"].tolist() == [
        "done",
        "done",
    ]
    assert [line.split(": ")[1] for line in told] == [
        f"1 recording is not below {audio} and was not compared, first 'M2.wav'"
    ]


def test_other_weights_under_the_same_path_are_refused(meetings, settings, layer_encoder, tmp_path):
    from transformers import Wav2Vec2Model

    encoder = shutil.copytree(layer_encoder, tmp_path / "encoder")
    config = replace(settings, encoder=str(encoder), log_dir=str(tmp_path / "logs"))
    config = replace(config, sessions=("M1",))
    train_table(meetings[1], config)
    moved = shutil.copytree(encoder, tmp_path / "moved" / "encoder")
    same = replace(config, encoder=str(moved))
    assert train_table(meetings[1], same).sessions["state"].tolist() == ["done", "not asked"]
    model = Wav2Vec2Model.from_pretrained(encoder)
    with torch.no_grad():
        model.encoder.layer_norm.weight += 0.5
    model.save_pretrained(encoder)
    for sessions in (("M1",), ("M2",)):
        with pytest.raises(InputError, match=r"version_0: .* encoder whose weights_sha256 is"):
            train_table(meetings[1], replace(config, sessions=sessions))
    shutil.rmtree(encoder)
    told = []
    train_table(meetings[1], config, warn=told.append)
    assert told[0].startswith("encoder: was not compared with that of the finished sessions")
    with pytest.raises(InputError, match=r"--encoder"):
        train_table(meetings[1], replace(config, sessions=()))


def test_what_is_assumed_of_an_encoder_is_told(meetings, settings, layer_encoder, tmp_path):
    encoder = shutil.copytree(layer_encoder, tmp_path / "encoder")
    (encoder / "preprocessor_config.json").unlink()
    config = replace(settings, encoder=str(encoder), log_dir=str(tmp_path / "logs"))
    warned = []
    train_table(meetings[1], replace(config, sessions=("M1",)), warn=warned.append)
    assert [line for line in warned if "--normalize" in line]
    other = replace(config, normalize="no", sessions=("M1",))
    with pytest.raises(InputError, match="settings .'normalize'. differ"):
        train_table(meetings[1], other)


def test_folders_brought_together_are_of_the_same_settings(meetings, settings, fleet, tmp_path):
    other = replace(settings, log_dir=str(tmp_path / "other"), dropout=0.1, sessions=("M2",))
    train_table(meetings[1], other)
    both = tmp_path / "both"
    both.mkdir()
    shutil.copytree(Path(fleet.log_dir) / "version_0", both / "version_0")
    shutil.copytree(Path(other.log_dir) / "version_1", both / "version_1")
    with pytest.raises(InputError, match=r"version_1/task.json: settings \['dropout'\] differ"):
        train_table(meetings[1], replace(fleet, log_dir=str(both)))


def test_a_result_and_its_note_belong_together(meetings, fleet):
    version = Path(fleet.log_dir) / "version_0"
    other = json.loads((Path(fleet.log_dir) / "version_1" / "result.json").read_bytes())
    (version / "result.json").write_text(json.dumps({**other, "session": "M1"}))
    with pytest.raises(InputError, match="version_0: result.json does not match task.json"):
        train_table(meetings[1], fleet)
    (version / "task.json").unlink()
    with pytest.raises(InputError, match="version_0: holds a result without task.json"):
        train_table(meetings[1], fleet)


def as_version_010(folder, config):
    """Make a session's folder what version 0.1.0 left."""
    (folder / "rows.csv").unlink()
    note = json.loads((folder / "task.json").read_bytes())
    old = {name: note[name] for name in ("session", "rows_sha256")}
    (folder / "task.json").write_text(json.dumps(old))
    result = json.loads((folder / "result.json").read_bytes())
    for name in ("test_unknown", "test_learnt", "made_from"):
        del result[name]
    (folder / "result.json").write_text(json.dumps(result))
    best = folder.parent / result["checkpoint"]
    checkpoint = torch.load(best, weights_only=True)
    del checkpoint["spk"]["audio"], checkpoint["spk"]["encoder"]["normalization"]
    del checkpoint["spk"]["settings"]["keep_last"]
    torch.save(checkpoint, best)
    checkpoint_path(folder, result["session"], "last", config).unlink()


def test_folders_of_version_010_are_read_and_compared_as_far_as_they_say(
    meetings, fleet, monkeypatch, tmp_path
):
    from spk.finetune.prediction import predict

    for version in (0, 1):
        as_version_010(Path(fleet.log_dir) / f"version_{version}", fleet)
    told = []
    assert train_table(meetings[1], fleet, warn=told.append).sessions["state"].tolist() == [
        "done",
        "done",
    ]
    assert len(told) == 2
    assert "version_0: was begun by version 0.1.0, whose recordings cannot be compared" in told[0]
    with pytest.raises(InputError, match="version_0: was trained on other rows than the table's"):
        train_table(changed(meetings[1], "speaker", "b"), fleet)
    named = predict(fleet.log_dir, meetings[1], audio_root=str(meetings[0]))
    assert len(named.table) == 12
    with pytest.raises(InputError, match=r"version_0: has 1 epoch and no M1-last.ckpt"):
        train_table(meetings[1], replace(fleet, max_epochs=2))
    monkeypatch.setattr(
        "spk.finetune.training.check_run.identity", lambda encoder: {"weights_sha256": "0" * 64}
    )
    with pytest.raises(InputError, match="version_0: .* encoder whose weights_sha256 is"):
        train_table(meetings[1], fleet)


def bits(config, version=0):
    """Return what a session's training came to."""
    folder = Path(config.log_dir) / f"version_{version}"
    checkpoint = torch.load(next(folder.glob("checkpoints/*-best.ckpt")), weights_only=True)
    history = pd.read_csv(folder / "metrics.csv").drop(columns="seconds").to_csv()
    state = {name: tensor.tolist() for name, tensor in checkpoint["state_dict"].items()}
    return history, checkpoint["epoch"], state, (folder / "predictions.csv").read_bytes()


def test_more_epochs_after_the_end_go_on_as_if_there_had_been_no_end(
    meetings, settings, fleet, tmp_path, monkeypatch
):
    longer = replace(fleet, max_epochs=3, patience=None)
    with pytest.raises(InputError, match=r"settings \['patience'\] differ"):
        train_table(meetings[1], longer)
    longer = replace(fleet, max_epochs=3)
    begun = []
    step = "spk.finetune.model.module.SpeakerModule.on_train_epoch_start"
    from spk.finetune.model.module import SpeakerModule

    start = SpeakerModule.on_train_epoch_start
    monkeypatch.setattr(step, lambda self: (begun.append(self.current_epoch), start(self))[1])
    assert train_table(meetings[1], longer).sessions["epochs"].tolist() == [3, 3]
    assert begun == [1, 2, 1, 2]
    whole = replace(settings, max_epochs=3, log_dir=str(tmp_path / "whole"))
    train_table(meetings[1], whole)
    assert [bits(longer, version) for version in (0, 1)] == [bits(whole, v) for v in (0, 1)]
    begun.clear()
    assert train_table(meetings[1], longer).sessions["epochs"].tolist() == [3, 3]
    assert begun == []


def test_without_its_last_epoch_a_session_is_not_taken_for_longer(meetings, fleet):
    short = replace(fleet, keep_last=False)
    train_table(meetings[1], short)  # removes what was kept
    assert not list(Path(fleet.log_dir).rglob("*-last.ckpt"))
    with pytest.raises(InputError) as told:
        train_table(meetings[1], replace(short, max_epochs=2))
    folder = f"{fleet.log_dir}/version_0"
    assert f"delete {folder} to train all 2 epochs" in str(told.value)
    for version in (0, 1):
        shutil.rmtree(f"{fleet.log_dir}/version_{version}")
    assert train_table(meetings[1], replace(short, max_epochs=2)).sessions["epochs"].tolist() == [
        2,
        2,
    ]


def test_an_absolute_folder_of_checkpoints_is_of_one_fleet(meetings, settings, tmp_path):
    one = replace(settings, log_dir=str(tmp_path / "one"), checkpoint_dir=str(tmp_path / "kept"))
    train_table(meetings[1], replace(one, sessions=("M1",)))
    with pytest.raises(InputError, match=r"kept/version_0: holds 'M1-best.ckpt' of another run"):
        train_table(meetings[1], replace(one, log_dir=str(tmp_path / "two"), dropout=0.1))


@pytest.mark.parametrize("written", [0, 1])
def test_a_run_killed_while_it_writes_its_provenance_goes_on(
    meetings, settings, tmp_path, monkeypatch, written
):
    config = replace(settings, log_dir=str(tmp_path), sessions=("M1",))
    write, names = provenance.atomic_write, []

    def killed(path, content):
        if len(names) == written:
            raise KeyboardInterrupt
        names.append(path.name)
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(provenance, "atomic_write", killed)
        with pytest.raises(KeyboardInterrupt):
            train_table(meetings[1], config)
    assert len(names) == written
    assert "done" in set(train_table(meetings[1], config).sessions["state"])


def test_a_folder_with_files_of_the_user_s_own_is_no_fleet_s(meetings, settings, tmp_path):
    (tmp_path / "config.yaml").write_text("max_epochs: 3\n")
    with pytest.raises(InputError, match="holds 'config.yaml' of another program"):
        train_table(meetings[1], replace(settings, log_dir=str(tmp_path)))
    assert (tmp_path / "config.yaml").read_text() == "max_epochs: 3\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [("a b", "a_b"), ("a/b", "a:b"), ("é!", "e!"), ("会" * 80, "会" * 79 + "议")],
)
def test_two_sessions_never_share_a_file_s_name(one, other):
    assert safe_filename(one) != safe_filename(other)
    assert all(
        len(f".{safe_filename(name)}-best.ckpt.12345678".encode()) < 256 for name in (one, other)
    )


def test_one_session_in_two_forms_of_unicode_has_one_name():
    assert safe_filename("Bu\u0308ro") == safe_filename("B\u00fcro ") == "B\u00fcro"


def test_checkpoints_of_version_010_keep_their_names(tmp_path):
    config = FinetuneConfig()
    assert checkpoint_path(tmp_path, "a b", "last", config).name == "a_b-c8687a08-last.ckpt"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "a_b-best.ckpt").touch()
    assert checkpoint_path(tmp_path, "a b", "last", config).name == "a_b-last.ckpt"


def test_test_segments_that_share_audio_with_training_are_told(meetings, settings, tmp_path):
    table = meetings[1].copy()
    table.loc[18, ["start", "end"]] = [0.3, 0.9]  # half of a training segment
    table.loc[19, "speaker"] = "stranger"
    told = []
    config = replace(settings, log_dir=str(tmp_path / "logs"), sessions=("M1",))
    done = train_table(table, config, log=told.append)
    assert "1 of 6 test segments has speakers without training segments" in told[0]
    assert "1 of 6 test segments shares audio with training segments" in told[0]
    assert "1 of 6 test segments shares audio" in done.text
    assert done.sessions[["test_unknown", "test_learnt"]].iloc[0].tolist() == [1, 1]
    assert read_result(tmp_path / "logs" / "version_0").test_learnt == 1


def rows(**columns):
    known = {"segment_id": "x", "session": "M1", "audio": "a/M1.wav", "start": 0.0, "end": 1.0}
    return pd.DataFrame([{**known, **columns}])


@pytest.mark.parametrize(
    ("columns", "shared"),
    [
        ({}, True),
        ({"audio": "b/M1.flac"}, True),  # the same meeting in another folder and coding
        ({"session": "M2", "audio": "gone/M1.wav"}, False),
        ({"session": "M2", "audio": "copy.wav"}, True),  # the same bytes under another name
        ({"session": "M2", "audio": "longer.wav"}, False),
        ({"start": 1.0, "end": 2.0}, False),  # touching
        ({"start": 0.99, "end": 2.0}, True),
        ({"start": 4.5, "end": 5.5}, True),
        ({"start": 2.5, "end": 3.5}, False),
    ],
)
def test_a_recording_is_the_same_by_name_or_by_content(tmp_path, columns, shared):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "M1.wav").write_bytes(b"sound")
    (tmp_path / "copy.wav").write_bytes(b"sound")
    (tmp_path / "longer.wav").write_bytes(b"sounds")
    known = pd.concat([rows(), rows(start=0.5, end=1.0), rows(start=4.0, end=5.0)])
    marks = {"a/M1.wav": provenance.mark(tmp_path / "a" / "M1.wav")}
    learnt = provenance.training_audio(known, marks)
    assert learnt[0]["spans"] == [[0.0, 1.0], [4.0, 5.0]]
    found = provenance.sharing_audio(rows(**columns), learnt, str(tmp_path))
    assert found == (["x"] if shared else [])
