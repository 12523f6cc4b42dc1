"""What every command has: `-h`, `-q`, `-v`, options from the environment, one line for an error."""

import logging

import click
import pytest
from click.testing import CliRunner

from spk.common import log as log_module
from spk.common.click_options import Option
from spk.common.commands import Command, Group, version_option
from spk.common.errors import InputError
from spk.common.log import debug, is_quiet, log


def told(command, *words, **environment):
    """Return (exit code, stdout, stderr) of a command, whose program is `tool`."""
    done = CliRunner().invoke(command, words, prog_name="tool", env=environment)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.stdout, done.stderr


@click.command(cls=Command, context_settings={"auto_envvar_prefix": "TOOL"})
@version_option
@click.option("--audio-root", cls=Option, aliases=("--audio",), default=".", group="Audio")
@click.option("--keep/--no-keep", cls=Option, aliases=("--hold",), default=False)
def tool(audio_root, keep):
    """Do it."""
    log("beside the result")
    debug("inside")
    click.echo(f"{audio_root} {keep} {is_quiet()}")
    if audio_root == "nowhere":
        raise InputError("nowhere: is no folder, expected one; name another")


def test_h_is_help():
    assert told(tool, "-h") == told(tool, "--help")
    assert "-h, --help" in told(tool, "-h")[1]


def test_by_default_information_is_on_stderr_and_details_are_not():
    assert told(tool) == (0, ". False False\n", "beside the result\n")


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_quiet_leaves_the_result_alone(option):
    assert told(tool, option) == (0, ". False True\n", "")


def test_quiet_leaves_errors():
    code, _, stderr = told(tool, "-q", "--audio-root", "nowhere")
    assert (code, stderr) == (1, "nowhere: is no folder, expected one; name another\n")


@pytest.mark.parametrize("option", ["-v", "--verbose"])
def test_verbose_tells_options_where_they_come_from_and_details(option):
    code, stdout, stderr = told(tool, option, "--keep", TOOL_AUDIO_ROOT="wav")
    assert (code, stdout) == (0, "wav True False\n")
    for line in ("audio_root = 'wav' (environment)", "keep = True (commandline)", "inside"):
        assert f" ms spk: {line}\n" in stderr
    assert "\nbeside the result\n" in stderr


def test_verbose_shows_the_traceback_of_an_error_before_its_line():
    code, _, stderr = told(tool, "-v", "--audio-root", "nowhere")
    assert code == 1
    assert "Traceback (most recent call last)" in stderr
    assert "in tool\n    raise InputError" in stderr
    assert stderr.endswith("\nnowhere: is no folder, expected one; name another\n")


def test_quiet_and_verbose_exclude_each_other():
    code, _, stderr = told(tool, "-q", "-v")
    assert code == 2
    assert "--quiet and --verbose exclude each other" in stderr


def test_a_command_leaves_logging_as_it_was():
    logger = logging.getLogger(log_module.NAME)
    before = logger.level, logger.propagate, list(logger.handlers)
    told(tool, "-q")
    told(tool, "-v", "--audio-root", "nowhere")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
    assert not is_quiet()


@pytest.mark.parametrize("spelling", ["--audio-root", "--audio_root", "--audio"])
def test_each_spelling_of_an_option_works(spelling):
    assert told(tool, "-q", spelling, "wav")[1] == "wav False True\n"
    assert told(tool, "-q", f"{spelling}=wav")[1] == "wav False True\n"


@pytest.mark.parametrize(
    ("spelling", "value"),
    [("--keep", True), ("--hold", True), ("--no-keep", False), ("--no_hold", False)],
)
def test_each_spelling_of_a_switch_works(spelling, value):
    assert told(tool, spelling, TOOL_KEEP=str(not value))[1] == f". {value} False\n"


def test_help_shows_one_spelling_under_its_heading():
    text = told(tool, "-h")[1]
    assert "\nAudio:\n  --audio-root TEXT" in text
    assert "  --keep / --no-keep" in text.partition("\nOther options:\n")[2]
    assert not any(word in text for word in ("--audio ", "audio_root", "hold"))


def test_a_slip_is_answered_by_shown_spellings_alone():
    code, _, stderr = told(tool, "--audio-rot", "wav")
    assert code == 2
    assert "--audio-root" in stderr
    assert "audio_root" not in stderr


def test_an_option_is_taken_from_the_environment_unless_typed():
    assert told(tool, TOOL_AUDIO_ROOT="wav", TOOL_KEEP="1")[1] == "wav True False\n"
    assert told(tool, "--audio-root", "typed", TOOL_AUDIO_ROOT="wav")[1] == "typed False False\n"


def test_a_version_in_the_environment_is_no_wish_to_see_it():
    assert told(tool, TOOL_VERSION="1")[1] == ". False False\n"


def test_commands_of_a_group_have_what_commands_have():
    @click.group(cls=Group, context_settings={"auto_envvar_prefix": "TOOL"})
    def group():
        """Do them."""

    @group.command("one-more")
    @click.option("--seed", cls=Option, type=int, default=0)
    def one_more(seed):
        """Do one."""
        log("beside")
        click.echo(seed)

    assert told(group, "one-more", "-q", TOOL_ONE_MORE_SEED="7") == (0, "7\n", "")
    assert told(group, "one-more", TOOL_ONE_MORE_QUIET="1") == (0, "0\n", "")


@click.command(cls=Command)
@click.argument("table", type=click.Path())
@click.option("--runs", type=click.Path())
@click.option("--layers")
@click.option("--audio-root")
@click.option("--said")
def picky(table, runs, layers, audio_root, said):
    """Refuse what it is told to, as a function of Python does."""
    raise InputError(said)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("table: column 'split' is missing; split it", "a/t.csv: column 'split' is missing; "),
        ("runs: holds none; name another", "swept: holds none; name another"),
        ("layers: 9 is not there, expected 0: correct it", "--layers: 9 is not there, expected 0:"),
        ("said: is wrong", "--said: is wrong"),
        ("runs: no table is given; pass it too", "--runs: no table is given; "),
        ("audio-root: is wrong", "--audio-root: is wrong"),
        ("table 3: is wrong", "table 3: is wrong"),
        ("t.csv: table: is wrong", "t.csv: table: is wrong"),
        ("table", "table"),
    ],
)
def test_an_error_names_what_was_typed_in_the_place_of_an_argument_in_python(said, shown):
    code, _, stderr = told(picky, "a/t.csv", "--runs", "swept", "--layers", "9", "--said", said)
    assert code == 1
    assert stderr.startswith(shown)
    unset = told(picky, "a/t.csv", "--said", "runs: none is given; name one")[2]
    assert unset == "--runs: none is given; name one\n"
