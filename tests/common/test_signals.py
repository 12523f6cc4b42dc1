"""Ctrl-C and SIGTERM end a command with one line, 130 or 143, and what is open is closed."""

import signal
import subprocess
import sys
import textwrap
import time

import click
import pytest
from click.testing import CliRunner

from spk.common.commands import Command
from spk.common.signals import INTERRUPTED

COMMAND = """
import click, os, signal, sys, time
from spk.common.commands import Command
me = os.getpid()

@click.command(cls=Command)
def main():
    try:
{body}
    finally:
        print("closed", flush=True)

main()
"""
ENDS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def start(body, folder, **options):
    """Run a command of these lines in a process of its own."""
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    words = [sys.executable, "-c", COMMAND.format(body=lines)]
    # these tests may themselves run where Ctrl-C is ignored, as in a shell's background job
    options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=folder, **pipes, **options)


def end_of(body, folder):
    """Let a program run; return its exit code, and what it says on stdout and stderr."""
    with start(body, folder) as running:
        said = running.communicate()
    return running.returncode, *said


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_closes_what_is_open_and_tells_one_line(tmp_path, number, code):
    with start("print('begun', flush=True)\ntime.sleep(60)", tmp_path) as running:
        assert running.stdout.readline() == "begun\n"
        running.send_signal(number)
        out, err = running.communicate()
    assert (running.returncode, out, err) == (code, "closed\n", f"{INTERRUPTED}\n")


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_loop_ends_in_good_order_before_the_signal_has_its_effect(tmp_path, number, code):
    body = """
        from spk.common.signals import stop_then_raise
        with stop_then_raise(print) as stop:
            os.kill(me, {number})
            print("stops", stop(), flush=True)
        print("never")
    """
    with start(textwrap.dedent(body).format(number=int(number)), tmp_path) as running:
        out, err = running.communicate()
    said = "stopping after this batch; once more to stop at once\nstops True\nclosed\n"
    assert (running.returncode, out, err) == (code, said, f"{INTERRUPTED}\n")


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_inside_an_import_it_ends_at_once(tmp_path, number, code):
    # as an extension does that turns what is raised in it into another error
    slow = f"import os\ntry:\n    os.kill(os.getpid(), {int(number)})\n"
    (tmp_path / "slow.py").write_text(f"{slow}except BaseException:\n    raise ImportError")
    with start("import slow", tmp_path) as running:
        out, err = running.communicate()
    assert (running.returncode, out, err) == (code, "", f"{INTERRUPTED}\n")


def test_a_second_signal_ends_what_the_first_one_has_not(tmp_path):
    body = "try:\n    os.kill(me, 2)\nexcept BaseException:\n    print('deaf')\nos.kill(me, 2)"
    with start(f"{body}\ntime.sleep(60)", tmp_path) as running:
        running.communicate()
    assert running.returncode == -signal.SIGINT


def test_a_forked_worker_ends_as_it_would_without_us(tmp_path):
    body = (
        "child = os.fork()\nif not child:\n    os.kill(os.getpid(), 15)\n    time.sleep(60)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    with start(body, tmp_path) as running:
        out, err = running.communicate()
    assert (running.returncode, out, err) == (0, "-15\nclosed\n", "")


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_waits_for_what_would_take_it_for_a_fault(tmp_path, number, code):
    body = (
        "from spk.common.signals import defer_signals\n"
        "with defer_signals():\n    with defer_signals():\n"
        f"        os.kill(me, {int(number)})\n    print('whole')\nprint('not reached')"
    )
    assert end_of(body, tmp_path) == (code, "whole\nclosed\n", f"{INTERRUPTED}\n")


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_what_a_library_makes_of_a_signal_ends_the_command_as_the_signal(tmp_path, number, code):
    body = (
        f"try:\n    os.kill(me, {int(number)})\n    time.sleep(60)\n"
        "except SystemExit as problem:\n    raise SystemExit(f'in a library: {problem!r}')"
    )
    assert end_of(body, tmp_path) == (code, "closed\n", f"{INTERRUPTED}\n")


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_library_takes_no_signal_for_itself(tmp_path, number, code):
    body = (
        "from spk.common.signals import keep_handlers\n"
        "with keep_handlers():\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
        "os.kill(me, signal.SIGUSR1)\n"
        f"os.kill(me, {int(number)})\ntime.sleep(60)"
    )
    assert end_of(body, tmp_path) == (code, "closed\n", f"{INTERRUPTED}\n")


@pytest.mark.parametrize(("seconds", "again"), [(0.1, False), (300, True)])
@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_library_that_waits_without_python_is_left(tmp_path, number, code, seconds, again):
    body = (
        "import ctypes\nfrom spk.common.signals import exit_when_stuck\n"
        "lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)\n"
        "library.pthread_mutex_lock(lock)\nprint('stuck', flush=True)\n"
        f"with exit_when_stuck({seconds}, lambda: print('cleared', flush=True)):\n"
        "    library.pthread_mutex_lock(lock)  # never returns"
    )
    with start(body, tmp_path) as running:
        assert running.stdout.readline() == "stuck\n"
        time.sleep(0.1)
        running.send_signal(number)
        if again:
            time.sleep(0.1)  # two that are pending at once are one
            running.send_signal(number)
        out, err = running.communicate()
    assert (running.returncode, out, err) == (code, "cleared\n", f"{INTERRUPTED}\n")


def test_what_ends_in_time_after_a_signal_is_left_alone(tmp_path):
    body = (
        "from spk.common.signals import exit_when_stuck, stop_after_batch\n"
        "with stop_after_batch(print) as caught, exit_when_stuck(0.2, lambda: print('cleared')):\n"
        "    os.kill(me, 2)\ntime.sleep(0.5)\nprint(caught)"
    )
    with start(body, tmp_path) as running:
        out, err = running.communicate()
    said = "stopping after this batch; once more to stop at once\n[2]\nclosed\n"
    assert (running.returncode, out, err) == (0, said, "")


def test_a_signal_that_ends_no_program_does_not_end_one_that_waits(tmp_path):
    body = (
        "import signal\nfrom spk.common.signals import exit_when_stuck\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('received'))\n"
        "with exit_when_stuck(0.2, lambda: print('cleared')):\n"
        "    os.kill(me, signal.SIGUSR1)\n    time.sleep(0.5)"
    )
    with start(body, tmp_path) as running:
        out, err = running.communicate()
    assert (running.returncode, out, err) == (0, "received\nclosed\n", "")


def test_ctrl_c_spares_what_was_started_deaf_and_ends_the_command(tmp_path):
    body = (
        "import subprocess\nfrom spk.common.signals import ignore_sigint_in_children\n"
        "words = [sys.executable, '-c', 'import os, signal; os.kill(os.getpid(), 2); print(7)']\n"
        "with ignore_sigint_in_children():\n    child = subprocess.Popen(words)\n"
        "child.wait()\nos.kill(me, 2)"
    )
    with start(body, tmp_path) as running:
        out, err = running.communicate()
    assert (running.returncode, out, err) == (130, "7\nclosed\n", f"{INTERRUPTED}\n")


def test_in_a_thread_nothing_waits(tmp_path):
    body = (
        "import threading\nfrom spk.common.signals import defer_signals\n"
        "inside, done = threading.Event(), threading.Event()\n"
        "def work():\n    with defer_signals():\n        inside.set()\n        done.wait(9)\n"
        "threading.Thread(target=work, daemon=True).start()\ninside.wait()\n"
        "try:\n    os.kill(me, 2)\n    print('not reached')\nfinally:\n    done.set()"
    )
    with start(body, tmp_path) as running:
        out, err = running.communicate()
    assert (running.returncode, out, err) == (130, "closed\n", f"{INTERRUPTED}\n")


def test_what_the_shell_has_ignored_stays_ignored(tmp_path):
    body = "os.kill(me, 2)\nprint('here')"
    ignoring = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    with start(body, tmp_path, preexec_fn=ignoring) as running:
        out, err = running.communicate()
    assert (running.returncode, out, err) == (0, "here\nclosed\n", "")


def test_a_command_called_from_python_leaves_signals_alone():
    found = []

    @click.command(cls=Command)
    def main():
        found.extend(signal.getsignal(kind) for kind, _ in ENDS)

    before = [signal.getsignal(kind) for kind, _ in ENDS]
    assert CliRunner().invoke(main, []).exit_code == 0
    assert found == before
