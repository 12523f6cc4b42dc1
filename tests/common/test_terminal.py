"""Tables and colours are for terminals; a pipe receives the plain text, byte by byte."""

import subprocess
import sys

import pandas as pd
import pytest
from terminal import on_terminal, without_escapes

from spk.common.terminal import Table, frame_table, plain

ROWS = [
    {"layers": "0", "classifier": "ridge", "valid_accuracy": "0.912", "chosen": "", "test_low": ""},
    {"layers": "12", "classifier": "linear-svm", "valid_accuracy": "0.937", "chosen": "yes"}
    | {"test_low": "0.871"},
]
PLAIN = """\
layers  classifier  valid_accuracy  chosen  test_low
     0  ridge                0.912
    12  linear-svm           0.937  yes        0.871
"""
SHOW = (
    f"from spk.common.terminal import Table, show; show('above', Table({ROWS!r}, 'Title'), 'below')"
)
ESC = "\x1b["


def lines(text):
    return [line.rstrip() for line in without_escapes(text).splitlines()]


def test_a_pipe_receives_aligned_text():
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert done.stdout == f"above\nTitle\n{PLAIN}below\n"
    assert plain("above", Table(ROWS, "Title"), "below") == f"above\nTitle\n{PLAIN}below"


def test_colours_that_a_program_asks_for_reach_no_pipe(tmp_path):
    """Libraries that draw may be told FORCE_COLOR; what a program reads stays as it is."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        env={"FORCE_COLOR": "1", "TERM": "xterm-256color", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"above\nTitle\n{PLAIN}below\n"


def test_a_wide_terminal_shows_the_same_words_in_colours():
    code, shown = on_terminal(["-c", SHOW], columns=80)
    assert (code, lines(shown)) == (0, ["above", "Title", *PLAIN.splitlines(), "below"])
    assert ESC in shown


@pytest.mark.parametrize("columns", [20, 30, 40, 50])
def test_on_a_narrow_terminal_no_line_is_too_long_and_no_cell_is_broken(columns):
    shown = lines(on_terminal(["-c", SHOW], columns=columns)[1])
    assert max(map(len, shown)) <= columns
    words = " ".join(shown).split()
    for row in ROWS:
        assert set(filter(None, row.values())) <= set(words)


def test_names_of_columns_are_broken_before_the_table_is():
    shown = lines(on_terminal(["-c", SHOW], columns=45)[1])
    assert shown[2:4] == [
        "                      valid_          test_",
        "layers  classifier  accuracy  chosen    low",
    ]


def test_what_goes_on_below_says_of_whom_and_only_what_there_is():
    shown = lines(on_terminal(["-c", SHOW], columns=30)[1])
    assert shown[2:] == [
        "                      valid_",
        "layers  classifier  accuracy",
        "     0  ridge          0.912",
        "    12  linear-svm     0.937",
        "",
        "                    test_",
        "classifier  chosen    low",
        "linear-svm  yes     0.871",
        "below",
    ]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colours_sees_none(variables):
    code, shown = on_terminal(["-c", SHOW], **variables)
    assert (code, lines(shown)) == (0, ["above", "Title", *PLAIN.splitlines(), "below"])
    assert "\x1b" not in shown


def test_an_empty_no_color_is_none():
    assert ESC in on_terminal(["-c", SHOW], NO_COLOR="")[1]


def test_a_command_s_error_has_a_red_place_on_a_terminal_alone():
    words = ["-m", "spk", "manifests", "describe", "nowhere.csv"]
    code, shown = on_terminal(words)
    assert (code, shown.startswith("\x1b[31m\x1b[1mnowhere.csv:\x1b[0m no such file")) == (1, True)
    told = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert told.stderr == without_escapes(shown)
    assert on_terminal(words, NO_COLOR="1") == (1, told.stderr)


def test_a_warning_is_yellow_on_a_terminal():
    code = (
        "from spk.common.log import log, logging_to_stderr, warn\n"
        "with logging_to_stderr(): log('beside'); warn('doubtful')"
    )
    assert on_terminal(["-c", code])[1] == "beside\n\x1b[33mdoubtful\x1b[0m\n"
    assert on_terminal(["-c", code], NO_COLOR="1")[1] == "beside\ndoubtful\n"


def test_a_frame_is_shown_as_pandas_writes_it():
    frame = pd.DataFrame({"session": ["A", "all"], "minutes": [1.0, 12.25], "q05": [0.5, None]})
    table = frame_table(frame)
    assert str(table) == frame.to_string(index=False)
    assert table.rows[1] == {"session": "all", "minutes": "12.25", "q05": "NaN"}
    assert str(frame_table(frame.iloc[:0])) == frame.iloc[:0].to_string(index=False)


BARS = """
import time
from spk.common.log import log, logging_to_stderr, with_progress
with logging_to_stderr(quiet={quiet}):
    for number in with_progress([1, 2, 3], "layers"):
        time.sleep(0.15)
    print(sum(with_progress((n for n in range(4)), "pages", total=4)), list(with_progress([], "x")))
"""


def test_a_long_step_has_a_bar_on_a_terminal_that_is_gone_in_the_end():
    code, shown = on_terminal(["-c", BARS.format(quiet=False)])
    assert code == 0
    assert "| 2/3 [" in shown
    assert " layers/s]" in shown
    assert shown.split("\r")[-1] == "6 []\n"


def test_a_bar_is_as_wide_as_the_terminal():
    shown = on_terminal(["-c", BARS.format(quiet=False)], columns=40)[1]
    assert max(map(len, without_escapes(shown).replace("\n", "\r").split("\r"))) <= 40


def test_pipes_and_who_wants_quiet_have_no_bar():
    for quiet in (False, True):
        words = [sys.executable, "-c", BARS.format(quiet=quiet)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("6 []\n", "")
    assert on_terminal(["-c", BARS.format(quiet=True)])[1] == "6 []\n"
