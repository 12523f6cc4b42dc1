"""No command writes over its inputs, nor over a file with other content, without --overwrite."""

import os
from pathlib import Path

import click
import pytest

from spk.classify.cli import main as classify
from spk.classify.naming.cli import main as naming
from spk.extract.cli import main as extract
from spk.extract.store.cli import store
from spk.finetune.cli import main as finetune
from spk.manifests.cli import main as manifests

pytestmark = pytest.mark.slow

PROGRAMS = {"spk-manifests": manifests, "spk-extract": extract, "spk-store": store}
PROGRAMS |= {"spk-classify": classify, "spk-name": naming, "spk-finetune": finetune}

MEETING = "20990301_S_R001S01C01"  # of the demo corpus
# Every file that a command writes: the line with OUT for it, and the suffix of a good name.
FILES = {
    "spk-manifests rttm": ("corpus/TextGrid OUT", ".csv"),
    "spk-manifests textgrid": ("corpus/TextGrid OUT", ".parquet"),
    "spk-manifests whisperx": ("written/whisperx OUT", ".csv"),
    "spk-manifests srt": ("written/srt OUT", ".csv"),
    "spk-manifests vtt": ("written/vtt OUT", ".csv"),
    "spk-manifests txt": ("written/txt OUT", ".csv"),
    "spk-manifests eaf": ("written/eaf OUT", ".csv"),
    "spk-manifests lhotse": ("written/lhotse OUT", ".csv"),
    "spk-manifests nemo": ("written/nemo OUT", ".csv"),
    "spk-manifests kaldi": ("written/kaldi OUT", ".csv"),
    "spk-manifests turns": ("written/csv OUT", ".csv"),
    "spk-manifests export": ("turns.csv OUT", ".rttm"),
    "spk-manifests csv": ("segments/segments.csv OUT --audio-root .", ".csv"),
    "spk-manifests select": ("table.csv OUT --min-seconds 1", ".csv"),
    "spk-manifests split": ("turns.csv OUT --method random", ".csv"),
    "spk-manifests correct": ("table.csv corrections.csv --output OUT", ".csv"),
    "spk-manifests leaks": ("table.csv --out OUT", ".csv"),
    "spk-manifests describe": ("table.csv --out OUT", ".csv"),
    "spk-manifests match-csv": (
        "--segments-dir segments --csv-path segments/segments.csv --out OUT",
        ".csv",
    ),
    "spk-store pack": ("store OUT", ".h5"),
    "spk-store export": ("store OUT", ".npz"),
    "spk-classify predict": ("model table.csv store OUT", ".csv"),
    "spk-classify score": ("named.csv --table table.csv --output OUT", ".json"),
    "spk-classify compare": ("named.csv sweep/predictions.csv --output OUT", ".csv"),
    "spk-classify report": ("sweep named.csv --output OUT", ".html"),
    "spk-name enrol": ("OUT table.csv store --layer 1", ".voices"),
    "spk-name score": (f"names corpus/TextGrid/{MEETING}.rttm --output OUT", ".json"),
    "spk-finetune predict": ("fleet table.csv OUT --audio-root corpus/wav", ".csv"),
}
# Files whose place the command chooses in a folder that is given, and --profile.
PLACED = {
    "spk-classify curve": ("table.csv store sweep --seconds 1 --draws 1", "sweep/learning.csv"),
    "spk-classify open-set": ("table.csv store sweep", "sweep/openset.csv"),
    "spk-manifests cut": (
        "table.csv other --audio-root corpus/wav --listing-only",
        "other/segments.csv",
    ),
    "spk-manifests demo": (
        "other --sessions 1 --minutes 1 --speakers 2 --channels 1",
        "other/people.csv",
    ),
    "spk-manifests sample": ("other", "other/LICENCE.txt"),
}
FOLDERS = {
    "spk-manifests cut": "table.csv OUT --audio-root corpus/wav",
    "spk-manifests demo": "OUT --sessions 1 --minutes 1 --speakers 2 --channels 1",
    "spk-manifests sample": "OUT",
    "spk-extract": "table.csv OUT --audio-root corpus/wav --encoder demo",
    "spk-store merge": "store OUT",
    "spk-store import": "exported.npz table.csv OUT",
    "spk-classify sweep": "table.csv store OUT --classifiers ridge --layers 1",
    "spk-classify fit": "table.csv store OUT --classifiers ridge --layers 1",
    "spk-classify audit": "table.csv store OUT",
    "spk-classify link": "table.csv store OUT",
    "spk-name apply": (
        f"team.voices corpus/TextGrid/{MEETING}.rttm --audio-root corpus/wav --output OUT "
        "--threshold -1 --min-purity 0 --min-seconds 0"
    ),
    "spk-finetune embed": (
        "fleet/version_0/checkpoints/CHECKPOINT table.csv OUT --audio-root corpus/wav"
    ),
}
# Paths that are read; every other path of a command has to be declared by `writes`.
INPUTS = {
    *("path", "paths", "table", "audio_root", "identity", "rttm_dir", "pcm_dir", "store", "model"),
    *("vectors", "weights", "clips", "corrections"),
    *(
        "predictions",
        "a",
        "b",
        "run",
        "runs",
        "checkpoint",
        "segments_dir",
        "csv_path",
        "config",
        "times",
    ),
    *("voices", "clips", "diarization", "audio", "named", "reference", "uem"),
}
READ_NO_STORE = (
    *("spk-extract", "spk-name apply", "spk-finetune embed"),
    *("spk-manifests cut", "spk-store import"),
)
DONE = (0, 3)  # 3: rows were left out, such as of sessions without a model
GOES_ON = {"spk-finetune embed"}  # hours of work in a folder: there is no --overwrite


def commands():
    """Return {what is typed: click command} of the programs."""
    found = {}
    for name, program in PROGRAMS.items():
        group = isinstance(program, click.Group)
        parts = program.commands.items() if group else [("", program)]
        found |= {f"{name} {part}".strip(): command for part, command in parts}
    return found


COMMANDS = commands()


def outputs_of(command):
    return getattr(command.callback, "outputs", ())


def line_of(name, out):
    words = FILES[name][0] if name in FILES else FOLDERS[name]
    if "CHECKPOINT" in words:
        words = words.replace("CHECKPOINT", next(Path("fleet").rglob("*.ckpt")).name)
    return f"{name} {words.replace('OUT', str(out))}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_path_of_a_command_is_an_input_or_a_declared_output(name):
    command = COMMANDS[name]
    outputs = {output.name for output in outputs_of(command)}
    paths = {param.name for param in command.params if isinstance(param.type, click.Path)}
    assert outputs <= paths
    assert paths - outputs <= INPUTS
    assert not [
        p
        for p in command.params
        if p.param_type_name == "argument" and p.name not in paths | {"name"}  # a person
    ]


@pytest.mark.parametrize("name", [name for name in COMMANDS if outputs_of(COMMANDS[name])])
def test_every_command_that_writes_is_tried_below_and_has_the_option(name):
    options = {option for param in COMMANDS[name].params for option in param.opts}
    assert name in FILES | PLACED.keys() | FOLDERS.keys()
    assert ("--overwrite" in options) == (name not in GOES_ON)


def content(folder="."):
    """Return the bytes of every file below a folder, but locks'."""
    return {
        str(path): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name not in (".lock", "lock")
    }


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_other_content_is_replaced_with_overwrite_alone(made, typed, name):
    out = Path(f"out{FILES[name][1]}")
    out.write_bytes(b"mine")
    before = content()
    done = typed(line_of(name, out))
    assert done.exit_code == 1
    assert f"{out}: exists with other content, expected no such file; pass --over" in done.output
    assert content() == before
    again = typed(f"{line_of(name, out)} --overwrite")
    assert again.exit_code in DONE, again.output
    assert out.read_bytes() != b"mine"
    assert {**content(), str(out): b"mine"}.items() >= before.items()


@pytest.mark.parametrize("name", FILES)
def test_the_same_command_twice_succeeds_and_leaves_the_file(made, typed, name):
    out = Path(f"out{FILES[name][1]}")
    assert typed(line_of(name, out)).exit_code in DONE
    before = out.read_bytes(), out.stat().st_ino
    done = typed(line_of(name, out))
    assert done.exit_code in DONE, done.output
    assert (out.read_bytes(), out.stat().st_ino) == before


@pytest.mark.parametrize("name", FILES)
def test_a_folder_a_pipe_and_a_place_below_a_file_are_refused_before_the_work(made, typed, name):
    suffix = FILES[name][1]
    Path(f"folder{suffix}").mkdir()
    os.mkfifo(f"pipe{suffix}")
    for out in (f"folder{suffix}", f"pipe{suffix}", f"turns.csv/out{suffix}"):
        done = typed(f"{line_of(name, out)} --overwrite")
        assert done.exit_code == 1
        assert f"{out}: cannot be written" in done.output.splitlines()[0]


def spellings(path):
    """Yield one file as it may be typed: plain, over folders, absolute, by link and hard link."""
    path = Path(path)
    yield str(path)
    yield f"./corpus/../{path}"
    yield str(path.absolute())
    link, hard = Path(f"link{path.suffix}"), Path(f"hard{path.suffix}")
    for place in (link, hard):
        place.unlink(missing_ok=True)
    link.symlink_to(path)
    os.link(path, hard)
    yield str(link)
    yield str(hard)


def files_read(name):
    """Return the files that a command's line names as inputs."""
    return [word for word in line_of(name, "OUT").split() if Path(word).is_file()]


@pytest.mark.parametrize("name", FILES)
def test_an_input_is_never_written_over_in_any_spelling(made, typed, name):
    over = {name for output in outputs_of(COMMANDS[name]) for name in output.over}
    for given in files_read(name):
        before = Path(given).read_bytes()
        for out in spellings(given):
            for option in ("", " --overwrite"):
                done = typed(line_of(name, out) + option)
                allowed = bool(over and option and given == line_of(name, out).split()[2])  # TABLE
                assert done.exit_code == (0 if allowed else 1), (out, option, done.output)
                if not allowed:
                    assert Path(given).read_bytes() == before
                else:
                    Path(given).write_bytes(before)


def test_a_table_may_be_replaced_by_what_is_made_of_it(made, typed):
    rows = Path("table.csv").read_text().count("\n")
    assert typed("spk-manifests select table.csv table.csv --min-seconds 1").exit_code == 1
    done = typed("spk-manifests select table.csv table.csv --min-seconds 1 --overwrite")
    assert done.exit_code == 0
    assert Path("table.csv").read_text().count("\n") < rows


@pytest.mark.parametrize("name", PLACED)
def test_a_file_that_the_command_places_follows_the_rule(made, typed, name):
    words, out = PLACED[name][0], Path(PLACED[name][1])
    out.parent.mkdir(exist_ok=True)
    out.write_bytes(b"mine")
    done = typed(f"{name} {words}")
    assert (done.exit_code, out.read_bytes()) == (1, b"mine")
    assert f"{out}: exists with other content" in done.output
    for option in (" --overwrite", ""):  # and the same again
        assert typed(f"{name} {words}{option}").exit_code == 0
    assert out.read_bytes() != b"mine"


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_output_that_is_a_file_or_an_input_is_refused(made, typed, name):
    before = content()
    outs = ["turns.csv", "model" if name == "spk-manifests cut" else "segments"]
    if name in READ_NO_STORE:
        outs += ["corpus/wav", "corpus/TextGrid/../wav"]
    elif name not in ("spk-manifests demo", "spk-manifests sample"):  # which reads nothing
        outs += ["store", "corpus/../store", "store/inside"]
    for out in outs:
        option = "" if name in GOES_ON else " --overwrite"
        done = typed(line_of(name, out) + option)
        assert done.exit_code == 1, (out, done.output)
        assert content() == before


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_output_is_made_and_the_same_again_is_fine(made, typed, name):
    done = typed(line_of(name, "other"))
    assert done.exit_code in DONE, done.output
    before = content("other")
    done = typed(line_of(name, "other"))
    assert done.exit_code in DONE, done.output
    assert content("other").keys() == before.keys()


@pytest.mark.parametrize("name", ["spk-classify sweep", "spk-classify fit", "spk-store merge"])
def test_a_folder_with_a_users_files_is_refused_and_stays(made, typed, name):
    other = Path("other")
    other.mkdir()
    for file in ("predictions.csv", "config.json", "x.txt"):
        (other / file).write_text("mine")
    for option in ("", " --overwrite"):
        done = typed(line_of(name, "other") + option)
        assert done.exit_code == 1, done.output
        assert {path.name for path in other.iterdir()} - {".lock"} == {
            *("predictions.csv", "config.json", "x.txt")
        }
        assert (other / "config.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "kind"), [("spk-classify fit", "model"), ("spk-store merge", "store")]
)
def test_overwrite_never_takes_a_users_file_in_the_folder(made, typed, name, kind):
    Path(kind).rename("other")
    if kind == "store":
        typed("spk-extract table.csv store --audio-root corpus/wav --encoder demo --layers 1,2")
    Path("other/notes.txt").write_text("mine")
    line = line_of(name, "other").replace("--layers 1", "--layers 2") + " --overwrite"
    before = content("other")
    done = typed(line)
    assert done.exit_code == 1
    assert "other: holds 'notes.txt'" in done.output
    assert content("other") == before
    Path("other/notes.txt").unlink()
    done = typed(line)
    assert done.exit_code == 0, done.output
    assert content("other") != before


@pytest.mark.parametrize("beside", ["notes.csv", "split.json"])
@pytest.mark.parametrize("name", ["spk-manifests rttm", "spk-manifests select"])
def test_a_users_file_named_as_one_that_goes_with_a_table_is_not_lost(made, typed, name, beside):
    Path(f"out.csv.{beside}").write_text("my own")
    for option in ("", " --overwrite"):
        done = typed(line_of(name, "out.csv") + option)
        assert done.exit_code == 1
        assert "move it away" in done.output
        assert Path(f"out.csv.{beside}").read_text() == "my own"
        assert not Path("out.csv").exists()


def test_what_goes_with_a_table_begins_as_the_rule_says(made, typed):
    """A table's notes and record are told from a user's own files by how they begin."""
    from spk.common.outputs import BESIDE_TABLE

    typed("spk-manifests select table.csv out.csv --min-seconds 1")
    for suffix, start in BESIDE_TABLE.items():
        assert Path(f"out.csv{suffix}").read_bytes().startswith(start)
    Path("out.csv").unlink()  # what is left of it goes with the next table of this name
    assert typed("spk-manifests rttm corpus/TextGrid out.csv").exit_code == 0
    assert not Path("out.csv.split.json").exists()


def test_a_profile_is_replaced_by_the_next_and_nothing_else_is(made, typed):
    line = "spk-extract table.csv other --audio-root corpus/wav --encoder demo --profile p.txt"
    for taken in ("p.txt", "p.txt.trace.json"):
        Path(taken).write_text("mine")
        assert typed(line).exit_code == 1
        assert not Path("other").exists()
        assert Path(taken).read_text() == "mine"
        Path(taken).unlink()
    assert [typed(line).exit_code for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("out", ["store/packed.h5", "store/shards/packed.h5", "model/packed.h5"])
def test_nothing_is_put_into_a_store_that_is_read(made, typed, out):
    done = typed(f"spk-store pack store {out}")
    assert done.exit_code == (0 if out.startswith("model") else 1)
    assert typed("spk-store verify store").exit_code == 0


def test_a_full_disk_leaves_the_old_file_or_the_old_folder(made, typed, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    for line, kept in (
        ("spk-manifests select table.csv turns.csv --min-seconds 2 --overwrite", "turns.csv"),
        ("spk-classify fit table.csv store model --layers 2 --overwrite", "model"),
        ("spk-store export store named.npz --overwrite", "named.npz"),
        ("spk-store merge store merged --overwrite", "merged"),
    ):
        if kept == "named.npz":
            Path(kept).write_bytes(b"mine")
        if kept == "merged":
            typed("spk-store merge store merged")
        before = content()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert typed(line).exit_code == 1
        assert content() == before


@pytest.mark.parametrize("name", [name for name in FOLDERS if FOLDERS[name].count("OUT")])
def test_a_users_file_beside_a_store_is_not_lost(made, typed, name):
    Path("other.rejected.csv").write_text("mine")
    done = typed(line_of(name, "other"))
    makers = ("spk-extract", "spk-store merge", "spk-store import", "spk-finetune embed")
    of_a_store = name in makers
    assert (done.exit_code == 1) == of_a_store, done.output
    assert Path("other.rejected.csv").read_text() == "mine"
