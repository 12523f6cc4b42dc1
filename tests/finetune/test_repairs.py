"""Every repair that a message names gets the user on: situations, each typed to its good end.

A situation is what is typed, what the message must say, what the user types next because of it,
and what follows. `rm` deletes what the message says to delete, `mv` is what has happened to a
file. Each message's options must be those of the command typed, or of one that it names.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner

from spk.finetune.cli import main as finetune
from spk.manifests.cli import main as manifests
from spk.manifests.table import write_table

FIT = (
    "spk-finetune fit table.csv --audio-root wav --encoder demo --head linear "
    "--freeze-encoder-layers all --accelerator cpu --max-epochs 1 --log-dir a"
)
NEW = FIT.replace("--log-dir a", "--log-dir b")
BEST, LAST = (f"a/version_0/checkpoints/M1-{kind}.ckpt" for kind in ("best", "last"))
PREDICT = "spk-finetune predict a table.csv names.csv --audio-root wav"
EMBED = f"spk-finetune embed {BEST} table.csv store --audio-root wav"
OTHER_EMBED = EMBED.replace("a/version_0", "b/version_1").replace("M1", "M2")
COMMANDS = {"spk-finetune": finetune, "spk-manifests": manifests}
ANOTHER_DIR = "name another --log-dir"
ANEW = "delete a/version_0 and run spk-finetune fit again"

# name: ((what is typed, what its message says), ..., what is typed at last, what follows)
SITUATIONS = {
    "no table": [
        (FIT.replace("table.csv ", ""), "TABLE: is not given.*name a segment table"),
        (FIT, "a: 2 done"),
    ],
    "an encoder that is none": [
        (
            NEW.replace("demo", "nowhere/at/all"),
            "^--encoder: 'nowhere/at/all' is not a folder",
        ),
        (NEW, "b: 2 done"),
    ],
    "an encoder of the hub that is not at hand": [
        (NEW.replace("demo", "no/model"), "no/model: encoder is not available.*--encoder"),
        (NEW, "b: 2 done"),
    ],
    "more frozen layers than there are": [
        (NEW.replace("layers all", "layers 8"), "--freeze-encoder-layers: .* at most 5, .* or all"),
        (NEW, "b: 2 done"),
    ],
    "more epochs": [(f"{FIT} --max-epochs 2", "done, 2 epochs")],
    "more epochs without the last one": [
        (f"{FIT} --no-keep-last", "a: 2 done"),
        (f"{FIT} --max-epochs 2", "delete a/version_0 to train all 2 epochs"),
        "rm a/version_0",
        (f"{FIT} --max-epochs 2", "delete a/version_1 to train all 2 epochs"),
        "rm a/version_1",
        (f"{FIT} --max-epochs 2", "done, 2 epochs"),
    ],
    "fewer epochs": [
        (f"{FIT} --max-epochs 2", "a: 2 done"),
        (FIT, r"settings \['max_epochs'\] differ .*give them as there, or name another --log-dir"),
        (NEW, "b: 2 done"),
    ],
    "the best epoch to go on from, the last beside it": [
        (
            f"{NEW} --max-epochs 2 --resume-from-checkpoint {BEST}",
            f"holds no state of the optimiser.*; name {LAST}$",
        ),
        (f"{NEW} --max-epochs 2 --resume-from-checkpoint {LAST}", "M1: done, 2 epochs"),
    ],
    "the best epoch to go on from, alone": [
        f"rm {LAST}",
        (f"{NEW} --resume-from-checkpoint {BEST}", "leave out --resume-from-checkpoint to start"),
        (NEW, "b: 2 done"),
    ],
    "the last epoch to go on from, alone": [
        f"rm {BEST}",
        (
            f"{NEW} --max-epochs 2 --resume-from-checkpoint {LAST}",
            "M1-best.ckpt, is missing.*leave out --resume-from-checkpoint to start over",
        ),
        (NEW, "b: 2 done"),
    ],
    "a checkpoint of a session that is not to be trained": [
        (
            f"{NEW} --sessions M2 --resume-from-checkpoint {LAST}",
            "is of 'M1'.*leave it out, or ask",
        ),
        (f"{NEW} --sessions M2", "M2: done, 1 epoch in"),
    ],
    "a checkpoint of another table": [
        (
            f"{NEW.replace('table.csv', 'other.csv')} --resume-from-checkpoint {LAST}",
            r"other values of \[\"the table's rows\"\].*leave out --resume-from-checkpoint",
        ),
        (NEW.replace("table.csv", "other.csv"), "b: 2 done"),
    ],
    "a folder to go on from": [
        (f"{NEW} --resume-from-checkpoint a", "a: is a folder.*name a .ckpt file in it"),
        (f"{NEW} --max-epochs 2 --resume-from-checkpoint {LAST}", "M1: done, 2 epochs"),
    ],
    "other settings": [
        (f"{FIT} --seed 7", rf"settings \['seed'\] differ.*{ANOTHER_DIR}"),
        (f"{NEW} --seed 7", "b: 2 done"),
    ],
    "another table": [
        (FIT.replace("table.csv", "other.csv"), f"another speaker in this table.*{ANOTHER_DIR}"),
        (NEW.replace("table.csv", "other.csv"), "b: 2 done"),
    ],
    "a folder of another program": [
        "mv a/config.yaml b/version_0/notes.txt",
        (NEW, f"b/version_0: holds 'notes.txt' of another program.*{ANOTHER_DIR}"),
        (NEW.replace("--log-dir b", "--log-dir c"), "c: 2 done"),
    ],
    "the user's own config.yaml in the folder": [
        "mv a/config.yaml kept.yaml",
        "mv own.yaml config.yaml",
        (NEW.replace("-dir b", "-dir ."), f".: holds 'config.yaml' of another.*{ANOTHER_DIR}"),
        (NEW, "b: 2 done"),
    ],
    "checkpoints of another run": [
        (f"{NEW} --checkpoint-dir $PWD/kept", "b: 2 done"),
        (
            f"{NEW.replace('-dir b', '-dir c')} --checkpoint-dir $PWD/kept",
            "kept/version_0: holds 'M1-best.ckpt' of another run.*name another --checkpoint-dir",
        ),
        (f"{NEW.replace('-dir b', '-dir c')} --checkpoint-dir $PWD/more", "c: 2 done"),
    ],
    "a damaged result": [
        "mv own.yaml a/version_0/result.json",
        (FIT, f"result.json: cannot be read.*{ANEW}"),
        "rm a/version_0",
        (FIT, "M1: done.*a: 2 done"),
    ],
    "a damaged note": [
        "mv own.yaml a/version_0/task.json",
        (FIT, "task.json: cannot be read.*delete a/version_0 to train that session again"),
        "rm a/version_0",
        (FIT, "M1: done.*a: 2 done"),
    ],
    "predictions that are gone": [
        "rm a/version_0/predictions.csv",
        (FIT, f"a/version_0/predictions.csv: no such file.*{ANEW}"),
        "rm a/version_0",
        (FIT, "M1: done.*a: 2 done"),
    ],
    "a damaged checkpoint": [
        f"mv own.yaml {BEST}",
        (PREDICT, f"{BEST}: cannot be read.*{ANEW}"),
        "rm a/version_0",
        (FIT, "M1: done"),
        (PREDICT, "wrote names.csv: 12 segments"),
    ],
    "a checkpoint that is gone": [
        f"rm {BEST}",
        (PREDICT, f"{BEST}: no such file.*{ANEW}"),
        "rm a/version_0",
        (FIT, "M1: done"),
        (PREDICT, "wrote names.csv: 12 segments"),
    ],
    "nothing trained": [
        (PREDICT.replace("predict a", "predict b"), "b: no such file.*|holds no finished session"),
        (PREDICT, "wrote names.csv: 12 segments"),
    ],
    "another encoder to name with": [
        (
            f"{PREDICT} --encoder encoder",
            "weights_sha256 is .*'untrained' .*name its folder with --encoder",
        ),
        (f"{PREDICT} --encoder demo", "wrote names.csv: 12 segments"),
    ],
    "an encoder that has moved": [
        (NEW.replace("demo", "encoder"), "b: 2 done"),
        "mv encoder moved",
        (
            PREDICT.replace("predict a", "predict b"),
            "^--encoder: 'encoder' is|encoder is not available",
        ),
        (f"{PREDICT.replace('predict a', 'predict b')} --encoder moved", "wrote names.csv: 12"),
    ],
    "a new meeting and a model of another": [
        (PREDICT.replace("table.csv", "new.csv"), "spk-finetune fit --within corpus"),
        (f"{NEW} --within corpus", "corpus: done"),
        (
            PREDICT.replace("table.csv", "new.csv").replace("predict a", "predict b"),
            "12 of 12 segments are .*trained on|wrote names.csv: 6 segments",
        ),
    ],
    "recordings that are elsewhere": [
        (NEW.replace("root wav", "root ."), "recording is missing.*with --audio-root"),
        (NEW, "b: 2 done"),
    ],
    "recordings of another rate to name": [
        (PREDICT.replace("table.csv", "slow.csv"), "sample rate is 8000 Hz.*pass --resample"),
        (f"{PREDICT.replace('table.csv', 'slow.csv')} --resample", "wrote names.csv: 6 segments"),
    ],
    "recordings of another rate to train on": [
        (NEW.replace("table.csv", "slow.csv"), "sample rate is 8000 Hz.*pass --resample"),
        (f"{NEW.replace('table.csv', 'slow.csv')} --resample", "b: 1 done"),
    ],
    "fewer channels to name than in training": [
        (f"{NEW.replace('table.csv', 'two.csv')} --channel 1", "b: 1 done"),
        (PREDICT.replace("predict a", "predict b"), "channels are 1, .*pass --channel 0 or mean"),
        (f"{PREDICT.replace('predict a', 'predict b')} --channel 0", "wrote names.csv: 6 segments"),
    ],
    "a table without a split": [
        (NEW.replace("table.csv", "plain.csv"), "0 segments have split.*spk-manifests split"),
        ("spk-manifests split plain.csv again.csv", ""),
        (NEW.replace("table.csv", "again.csv"), "b: 2 done"),
    ],
    "a table without a split to name": [
        (PREDICT.replace("table.csv", "plain.csv"), "pass --split all"),
        (
            f"{PREDICT.replace('table.csv', 'plain.csv')} --split all",
            "wrote names.csv: 48 segments",
        ),
    ],
    "a table without validation": [
        (NEW.replace("table.csv", "unchosen.csv"), "split 'valid'.*--valid-share"),
        ("spk-manifests split unchosen.csv again.csv --method chronological --valid-share 0.2", ""),
        (NEW.replace("table.csv", "again.csv"), "b: 2 done"),
    ],
    "a session that is none": [
        (f"{NEW} --sessions M3", "--sessions: 'M3' is not in the table.*such as 'M1'; correct it"),
        (f"{NEW} --sessions M1", "b: 1 done"),
    ],
    "a cache that would not be exact": [
        (f"{NEW} --cache-prefix --crop-seconds 0.5", "--cache-prefix: crop_seconds.*leave out one"),
        (f"{NEW} --crop-seconds 0.5", "b: 2 done"),
    ],
    "another sample rate than the encoder's": [
        (f"{NEW} --sample-rate 8000", "--sample-rate: .*expected 16000 Hz.*leave it out"),
        (NEW, "b: 2 done"),
    ],
    "an unknown key": [
        (f"{NEW} --config wrong.yaml", "wrong.yaml: key 'sead' is unknown.*did you mean 'seed'"),
        (f"{NEW} --config own.yaml", "b: 2 done"),
    ],
    "features of several models": [
        (EMBED.replace(BEST, "a"), f"a: holds 2 models, first {BEST}.*name one"),
        (EMBED, "48 of 48"),
    ],
    "features of another model into a store": [
        (NEW.replace("layers all", "layers 3"), "b: 2 done"),
        (EMBED.replace("a/", "b/", 1), "48 of 48"),
        (OTHER_EMBED, "weights_sha256.*name another store"),
        (OTHER_EMBED.replace("store", "two"), "48 of 48"),
    ],
}


@pytest.fixture(scope="module")
def prepared(meetings, layer_encoder, tmp_path_factory):
    """Return a folder of tables, recordings, an encoder and a finished fleet ``a``."""
    audio, table = meetings
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copytree(audio, folder / "wav")
    shutil.copytree(layer_encoder, folder / "encoder")
    sound, rate = soundfile.read(folder / "wav" / "M1.wav")
    soundfile.write(folder / "wav" / "slow.wav", sound[::2], rate // 2)
    soundfile.write(folder / "wav" / "two.wav", [(0.0, value) for value in sound], rate)
    first = table[table["session"] == "M1"]
    tables = {
        "table": table,
        "other": table.assign(speaker=["b", *table["speaker"].iloc[1:]]),
        "new": first.assign(session="M9", segment_id="M9" + first["segment_id"]),
        "slow": first.assign(audio="slow.wav"),
        "two": first.assign(audio="two.wav"),
        "plain": table.drop(columns="split"),
        "unchosen": table.assign(split=table["split"].replace("valid", "train")),
    }
    for name, rows in tables.items():
        write_table(rows, folder / f"{name}.csv")
    (folder / "own.yaml").write_text("seed: 42\n")
    (folder / "wrong.yaml").write_text("sead: 42\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert typed(FIT).exit_code == 0
    return folder


def typed(line):
    program, *words = shlex.split(line.replace("$PWD", str(Path.cwd())))
    return CliRunner().invoke(COMMANDS[program], words)


def done_to_files(line):
    """Do what the message says to be done, or what has happened."""
    what, *names = line.split()
    first = Path(names[0])
    if what == "rm":
        assert first.exists()
        shutil.rmtree(first) if first.is_dir() else first.unlink()
    else:
        Path(names[1]).parent.mkdir(parents=True, exist_ok=True)
        first.replace(names[1])


def options_of(line, message):
    """Return the options of the command that was typed, and of those that the message names."""
    named = re.findall(r"(spk-finetune|spk-manifests) (\w+)", f"{line} {message}")
    commands = [
        COMMANDS[program].commands[name]
        for program, name in named
        if name in COMMANDS[program].commands
    ]
    return {
        option
        for command in commands
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", SITUATIONS)
def test_the_repair_typed_gets_the_user_on(prepared, tmp_path, monkeypatch, name):
    shutil.copytree(prepared, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for step, follows in zip(SITUATIONS[name], [*SITUATIONS[name][1:], None], strict=True):
        if isinstance(step, str):
            done_to_files(step)
            continue
        line, expected = step
        done = typed(line)
        assert re.search(expected, done.output.strip(), re.DOTALL), done.output
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        if follows is None:
            assert done.exit_code in (0, 3), done.output
        if done.exit_code == 1:
            message = done.output.strip().splitlines()[-1]
            used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", message))
            assert used <= options_of(line, message), message
