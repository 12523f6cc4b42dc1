"""The pages that people follow: README, tutorial, how-tos. Every command line on them is typed.

A page's blocks of shell are typed in their order, in a folder that holds what the page says is
there: small meetings in place of AISHELL-4 (`PLACES`), a tiny encoder in place of the default
(`ENVIRONMENT`), a CPU in place of GPUs (`STAND_INS`). What needs another machine, or the network,
is listed with its reason (`NOT_TYPED`), and the spk commands in it are parsed. What a page shows as
printed has to be printed, but for decimals; its Python is run where it stands.
"""

import os
import re
import shlex
import shutil
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner

from spk.__main__ import COMMANDS, main
from spk.common.commands import LEFT_OUT

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ADDRESS = "https://github.com/spk-toolkit/spk"
PAGES = [
    ROOT / "README.md",
    DOCS / "tutorial" / "index.md",
    *sorted((DOCS / "how-to").glob("*.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"sh", "python", "text", "json"}
PROGRAMS = {f"spk-{name}" for name in COMMANDS}

# The environment of all commands here: what AISHELL-4 and a GPU would take is small.
ENVIRONMENT = {
    "SPK_EXTRACT_ENCODER": "untrained",  # in place of the default of 300 million parameters
    "SPK_FINETUNE_FIT_ENCODER": "untrained",
    "SPK_FINETUNE_FIT_FREEZE_ENCODER_LAYERS": "4",  # it has five
    "SPK_FINETUNE_FIT_MAX_EPOCHS": "1",
    "SPK_CLASSIFY_SWEEP_JOBS": "1",
    "SPK_MANIFESTS_DEMO_SESSIONS": "2",
    "SPK_MANIFESTS_DEMO_MINUTES": "2",
    "SPK_MANIFESTS_DEMO_SPEAKERS": "3",
    "SPK_MANIFESTS_DEMO_CHANNELS": "1",
    "SPK_CLASSIFY_LINK_MIN_SECONDS": "4",  # half of the sample is short
    "HF_HUB_OFFLINE": "1",
}
STAND_INS = (  # words on a page, and what is typed in their place
    ("--device cuda:all", "--device cpu"),
    ("--max-epochs 6", "--max-epochs 2"),
    ("SESSION-best.ckpt", "20990301_S_R001S01C01-best.ckpt"),
)
# Lines that are not typed: how they begin, and why.
NOT_TYPED = {
    "#!": "a script for another machine",
    "pip install": "the network; the extras it names exist (below)",
    "make": "whole runs of their own; the targets exist (below)",
    "hf download": "the network",
    "python benchmarks/": "hours, on data that is not at hand; tests/test_benchmarks.py",
    "docker": "the network; tests/test_container.py reads what it is built of",
    "ray": "tests/common/test_engine.py has Ray's own commands",
    "head=$(hostname": "Slurm",
    "srun": "Slurm",
    "--": "the rest of srun's line",
    "timeout -s KILL": "kills are tests/robustness/test_kills.py",
}
# spk commands that are parsed and not run: a cluster of Ray (tests/extract/pipeline).
PARSED = ("--engine ray",)
SHELL = {"mkdir", "cd", "cp", "export", "cmp", "python", "sed", "while"}  # what else is typed
# What these pages show was printed for the six meetings or on a cluster, not at hand here.
PRINTED_ELSEWHERE = {"how-to/cluster.md", "how-to/names.md", "how-to/link.md"}
# Commands that end with exit code 3, as their page says: doubtful names, sessions without a model.
LEAVES_OUT = ("spk-name apply", "spk-finetune predict tuned/version_0")
# What is at hand on a page: its name there, and where it lies in the folder `corpus_of_pages`.
PLACES = {
    "how-to/aishell4.md": {"train_L": "corpus"},
    "how-to/audit.md": {"turns.csv": "table.csv", "features": "features", "wav": "corpus/wav"},
    "how-to/cluster.md": {"table.csv": "table.csv", "features": "features", "WAV": "corpus/wav"},
    "how-to/does_not_learn.md": {
        name: name for name in ("turns.csv", "table.csv", "features", "sweep")
    }
    | {"recordings": "corpus/wav"},
    "how-to/finetune.md": {"train_L": "corpus", "WAV": "corpus/wav", "other.csv": "table.csv"},
    "how-to/gpu.md": {"table.csv": "table.csv", "WAV": "corpus/wav", "DIR": "encoder"},
    "how-to/lhotse_kaldi.md": {
        "supervisions.jsonl.gz": "supervisions.jsonl.gz",
        "data/train": "kaldi",
        "data/phone": "phone",
        "train_manifest.json": "manifest.nemo.json",
        "corpus": "corpus",
        "recordings": "corpus/wav",
    },
    "how-to/link.md": {
        "turns.csv": "two_meetings/turns.csv",
        "features": "two_meetings/features",
        "MEETINGS": "two_meetings",
        "known.csv": "known.csv",
    },
    "how-to/names.md": {
        "clips": "sample/clips",
        "meeting.json": "sample/meeting.json",
        "meeting.wav": "sample/wav/sample.ogg",
        "meeting.flac": "sample/wav/sample.ogg",
        "meeting.rttm": "meeting.rttm",
        "truth.rttm": "truth.rttm",
        "scored.uem": "scored.uem",
        "known": "sample/TextGrid",
        "wav": "sample/wav",
        "people.csv": "people.csv",
    },
    "how-to/own_corpus.md": {
        "annotations": "corpus/TextGrid",
        "recordings": "corpus/wav",
        "voices": "sample/clips",
        "vectors.npz": "vectors.npz",
    },
    "how-to/report.md": {
        "sweep": "sweep",
        "tuned/predictions.csv": "sweep/predictions.csv",
        "table.csv": "table.csv",
        "WAV": "corpus/wav",
        "MEETINGS": "corpus",
        "TINY": "encoder",
    },
    "how-to/stores.md": {
        "features": "features",
        "part1": "part1",
        "part2": "part2",
        "table.csv": "table.csv",
        "WAV": "corpus/wav",
    },
}
MADE = (
    "spk-manifests demo corpus",
    "spk-manifests rttm corpus/TextGrid turns.csv --audio-root corpus/wav",
    "spk-manifests select turns.csv segments.csv --min-seconds 1.5",
    "spk-manifests split segments.csv table.csv",
    "spk-extract table.csv features --audio-root corpus/wav",
    "spk-extract table.csv part1 --audio-root corpus/wav --shard 1/2",
    "spk-extract table.csv part2 --audio-root corpus/wav --shard 2/2",
    "spk-classify sweep table.csv features sweep",
    "spk-manifests export turns.csv supervisions.jsonl.gz",
    "spk-manifests export turns.csv kaldi --format kaldi --audio-root corpus/wav",
    "spk-manifests export turns.csv manifest.nemo.json --audio-root corpus/wav",
    "spk-manifests sample sample",
)
HALVES = {"20990101_S_R001S01C01": (0, 55), "20990101_S_R001S03C01": (55, 111)}  # s
MADE_OF_HALVES = (
    "spk-manifests rttm two_meetings/TextGrid two_meetings/turns.csv --audio-root two_meetings/wav",
    "spk-extract two_meetings/turns.csv two_meetings/features --audio-root two_meetings/wav "
    "--encoder small",
)


def name_of(page):
    return page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT).as_posix()


def blocks_of(page):
    """Yield language and text of each fenced block, without its indentation."""
    for indent, language, text in FENCE.findall(page.read_text()):
        yield language, re.sub(f"^{indent}", "", text, flags=re.MULTILINE)


def lines_of(text):
    """Yield the command lines of a block: joined at a backslash, quotes closed, divided at &&."""
    pending = ""
    for line in text.replace("\\\n", " ").splitlines():
        pending += line + "\n"
        if pending.count('"') % 2:
            continue
        code = pending.strip()
        code = code if code.startswith("#!") else re.sub(r"(^|\s)#(?!!).*$", "", code).strip()
        pending = ""
        yield from (part.strip() for part in code.split(" && ") if part.strip())


def spoken(line):
    """Return a line's words with the program that a user could type instead: `spk extract`."""
    line = re.sub(r"^.*?(?=\bspk[- ])", "", line) if "spk" in line else line
    words = shlex.split(line.partition(" > ")[0])
    return [f"spk-{words[1]}", *words[2:]] if words[0] == "spk" else words


def parse(words):
    """Return the context of a command as click parses it; a wrong option or argument is raised."""
    command, context = main, None
    words = [words[0].removeprefix("spk-"), *words[1:]]
    while isinstance(command, click.Group):
        context = click.Context(command, context, command.name)
        name, command, words = command.resolve_command(context, words)
    return command.make_context(name, words, context, auto_envvar_prefix="NONE")


def is_command(line):
    return bool(re.match(r"spk(-[a-z]+)? ", line))


def reason_not_typed(line):
    return next((why for start, why in NOT_TYPED.items() if line.startswith(start)), None)


@pytest.fixture(scope="session")
def corpus_of_pages(tmp_path_factory, layer_encoder):
    """Return a folder with what stands in for the corpora, stores and runs of the pages."""
    folder = tmp_path_factory.mktemp("corpus")
    before, environment = Path.cwd(), dict(os.environ)
    os.chdir(folder)
    os.environ.update(ENVIRONMENT)
    try:
        for line in MADE:
            assert run(line)[0] == 0, line
        halve_the_sample(folder / "sample", folder / "two_meetings")
        for line in MADE_OF_HALVES:
            assert run(line)[0] == 0, line
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)
    shutil.copytree(layer_encoder, folder / "encoder")
    ids = pd.read_csv(folder / "table.csv").segment_id
    vectors = np.random.default_rng(0).normal(size=(len(ids), 8))
    np.savez(folder / "vectors.npz", segment_id=ids.to_numpy(str), vectors=vectors)
    rttm = folder / "sample" / "TextGrid" / "sample.rttm"
    turns = [line.split() for line in rttm.read_text().splitlines()]
    (folder / "people.csv").write_text(
        "session,speaker,person\n" + "".join(f"sample,{t[7]},{t[7]}\n" for t in turns[:7])
    )
    known = "".join(f"{session},ls1235,Ann\n{session},ls3807,Bo\n" for session in HALVES)
    (folder / "known.csv").write_text(f"session,speaker,person\n{known}")
    for name in ("truth.rttm", "meeting.rttm"):
        shutil.copy(folder / "sample" / "truth.rttm", folder / name)
    shutil.copytree(folder / "kaldi", folder / "phone")
    listed = (line.split() for line in (folder / "kaldi" / "wav.scp").read_text().splitlines())
    commands = "".join(f"{session} cat {path} |\n" for session, path in listed)
    (folder / "phone" / "wav.scp").write_text(commands)
    (folder / "scored.uem").write_text("meeting 1 55 111\n")
    return folder


def halve_the_sample(sample, out):
    """Write the sample as two meetings of the same people, one series."""
    samples, rate = soundfile.read(sample / "wav" / "sample.ogg")
    turns = (sample / "TextGrid" / "sample.rttm").read_text().splitlines()
    for place in ("wav", "TextGrid"):
        (out / place).mkdir(parents=True)
    for session, (start, end) in HALVES.items():
        soundfile.write(out / "wav" / f"{session}.wav", samples[start * rate : end * rate], rate)
        fields = [line.split() for line in turns if start <= float(line.split()[3]) < end]
        lines = [[f[0], session, f[2], str(float(f[3]) - start), *f[4:]] for f in fields]
        text = "".join(f"{' '.join(line)}\n" for line in lines)
        (out / "TextGrid" / f"{session}.rttm").write_text(text)


def run(line):
    """Type a line in this process; return its exit code and what it printed."""
    words = spoken(line)
    words[1:] = [
        name for word in words[1:] for name in (sorted(map(str, Path().glob(word))) or [word])
    ]
    group = main.get_command(click.Context(main), words[0].removeprefix("spk-"))
    prefix = words[0].upper().replace("-", "_")
    done = CliRunner().invoke(group, words[1:], auto_envvar_prefix=prefix)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def run_python(code):
    """Run a block of Python in this process; return what it printed."""
    with redirect_stdout(StringIO()) as printed:
        exec(code, {"__name__": "__main__"})
    return printed.getvalue()


def type_line(line, monkeypatch):
    """Type a line of a page; return what it printed."""
    for words, typed in STAND_INS:
        line = line.replace(words, typed)
    if line.startswith("cd "):
        monkeypatch.chdir(line.split()[1])
        return ""
    if line.startswith("export "):
        for setting in line.split()[1:]:
            monkeypatch.setenv(*setting.split("="))
        return ""
    if line.startswith("python -c "):
        return run_python(shlex.split(line)[2])
    if not is_command(line):
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout
    if any(words in line for words in PARSED):
        parse(spoken(line))
        return ""
    code, output = run(line)
    leaves_out = " ".join(spoken(line)).startswith(LEAVES_OUT)
    assert code in ((0, LEFT_OUT) if leaves_out else (0,)), (line, output)
    return output


def without_decimals(text):
    return re.sub(r"\d+\.\d+", "#", re.sub(r"  +", " ", text))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_page_runs(page, corpus_of_pages, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for place, source in PLACES.get(name_of(page), {}).items():
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (corpus_of_pages / source).is_dir() else shutil.copy
        copy(corpus_of_pages / source, place)
    printed = ""
    for language, text in blocks_of(page):
        if language == "sh":
            for line in lines_of(text):
                if reason_not_typed(line) is None:
                    printed += type_line(line, monkeypatch)
        elif language == "python":
            printed += run_python(text)
        elif language == "text" and printed and name_of(page) not in PRINTED_ELSEWHERE:
            shown = [line for line in text.splitlines() if line.strip() not in ("", "...")]
            told = without_decimals(printed).splitlines()
            assert [line for line in map(without_decimals, shown) if line not in told] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_of_a_page_escapes(page):
    """Each block says what it is, each line of shell is typed or listed with a reason."""
    typed = 0
    for language, text in blocks_of(page):
        assert language in LANGUAGES, text
        if language != "sh":
            assert not [line for line in text.splitlines() if is_command(line)], text
            continue
        for line in lines_of(text):
            if re.search(r"\bspk[- ](?!toolkit)[a-z]+ ", line):
                parse(spoken(line))
                typed += 1
            elif reason_not_typed(line) is None:
                assert line.split()[0] in SHELL, line
    shell = "\n".join(text for language, text in blocks_of(page) if language == "sh")
    wanted = re.findall(r"\bspk[- ](?:manifests|extract|store|classify|name|finetune) ", shell)
    assert typed == len(wanted)


def inline_commands(page):
    """Yield each command that stands inside a sentence or a table."""
    for code in re.findall(r"`(spk[- ][^`\n]+)`", FENCE.sub("", page.read_text())):
        words = code.split()
        words = [f"spk-{words[1]}", *words[2:]] if words[0] == "spk" else words
        if words[0] in PROGRAMS:
            yield code, words


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=name_of)
def test_every_command_in_a_sentence_exists(page):
    for code, words in inline_commands(page):
        command = main.get_command(click.Context(main), words[0].removeprefix("spk-"))
        if isinstance(command, click.Group) and re.match(r"\w", "".join(words[1:2])):
            command = command.commands.get(words[1])
            assert command is not None, code
        programs = command.commands.values() if isinstance(command, click.Group) else [command]
        params = [param for program in programs for param in program.params]
        options = {
            name
            for p in params
            for name in (*p.opts, *p.secondary_opts, *getattr(p, "aliases", ()))
        }
        options.add("--help")
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert option.replace("_", "-") in options, code


def test_what_is_installed_and_made_exists():
    extras = set(re.findall(r'^        "(\w+)": ', (ROOT / "setup.py").read_text(), re.MULTILINE))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for line in (
            line for lang, text in blocks_of(page) if lang == "sh" for line in lines_of(text)
        ):
            for named in re.findall(r"spk-toolkit\[([\w,]+)\]", line):
                assert set(named.split(",")) <= extras
            if line.startswith("make "):
                assert line.split()[1] in targets


def links_to_the_repository():
    pattern = rf"{ADDRESS}/(?:blob|tree)/main/([^)\s#>\"]+)(?:#([\w-]+))?"
    raw = r"https://raw\.githubusercontent\.com/spk-toolkit/spk/main/([^)\s#>\"]+)()"
    for page in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]:
        text = page.read_text()
        yield from ((page, *found) for found in re.findall(f"{pattern}", text))
        yield from ((page, *found) for found in re.findall(raw, text))


def test_every_absolute_link_names_a_file_of_the_checkout():
    links = [*links_to_the_repository()]
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link[1]).exists() or link[2]] == []


def test_links_of_the_readme_are_absolute():
    readme = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\(([^)]+)\)", readme)
    assert [target for target in targets if not target.startswith("https://")] == []
    assert f"repo_url: {ADDRESS}\n" in (ROOT / "mkdocs.yml").read_text()


def test_the_readme_is_short():
    words = re.sub(r"\(https[^)]*\)", "", (ROOT / "README.md").read_text()).split()
    assert len(words) < 700
    assert (DOCS / "images" / "report.png").stat().st_size < 300_000
