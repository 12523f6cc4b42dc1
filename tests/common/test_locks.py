"""The one lock of folders: one holder, no locks on the disk, and going on without."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys

import pytest

from spk.common.errors import InputError
from spk.common.locks import (
    NO_FCNTL,
    UNLOCKED,
    FolderBusyError,
    FolderLock,
    folder_lock,
    lock_file,
    lock_holder,
)


def test_the_second_is_told_who_holds_it_until_it_is_released(tmp_path):
    first = FolderLock(tmp_path / "lock")
    with pytest.raises(FolderBusyError, match=f'locked by .*"pid": {os.getpid()}.*wait for it'):
        FolderLock(tmp_path / "lock")
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    first.release()
    first.release()
    assert not first.held
    second = FolderLock(tmp_path / "lock")
    assert second.held
    second.release()
    assert (tmp_path / "lock").read_text() == ""


def test_who_holds_it_is_read_without_touching_it(tmp_path):
    path = tmp_path / "lock"
    assert lock_holder(path) is None
    lock = FolderLock(path)
    assert lock_holder(path)["pid"] == os.getpid()
    assert lock_holder(path)["host"] == socket.gethostname()
    lock.release()
    assert lock_holder(path) is None
    code = (
        "import os, sys; from pathlib import Path; from spk.common.locks import FolderLock; "
        "lock = FolderLock(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    killed = json.loads(path.read_text())
    assert killed["pid"] != os.getpid()
    assert lock_holder(path) is None
    path.write_text(json.dumps({**killed, "host": "elsewhere"}))
    assert lock_holder(path)["host"] == "elsewhere"
    path.write_text("no JSON")
    assert lock_holder(path) is None


def test_a_forked_child_does_not_keep_it(tmp_path):
    lock = FolderLock(tmp_path / "lock")
    child = os.fork()
    if not child:
        os._exit(int(lock.held))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lock.held
    lock.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_disk_without_locks_is_told_with_the_way_on(tmp_path, monkeypatch, number):
    def none(handle, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    said = rf"a: cannot be locked \({os.strerror(number)}\), expected .* pass --no-lock"
    with pytest.raises(InputError, match=said) as told, folder_lock(tmp_path / "a"):
        pass
    assert not isinstance(told.value, FolderBusyError)  # nobody else is at work there
    with folder_lock(tmp_path / "a", lock=False):
        assert (tmp_path / "a").is_dir()


def test_without_a_lock_two_go_at_once_and_no_file_is_left(tmp_path):
    with folder_lock(tmp_path / "a", lock=False), folder_lock(tmp_path / "a", lock=False):
        assert list((tmp_path / "a").iterdir()) == []


def test_a_link_named_as_the_lock_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="cannot be written"), folder_lock(tmp_path):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


def test_an_open_file_is_locked_once(tmp_path):
    with (tmp_path / "a").open("w") as one, (tmp_path / "a").open("w") as other:
        assert lock_file(one.fileno(), wait=False)
        assert not lock_file(other.fileno(), wait=False)


LOCKING = {
    "cut": "spk-manifests cut table.csv other --audio-root corpus/wav",
    "match-csv": "spk-manifests match-csv --segments-dir segments --csv-path segments/segments.csv",
    "extract": "spk-extract table.csv other --audio-root corpus/wav --encoder demo",
    "merge": "spk-store merge store other",
    "merge anew": "spk-store merge store store2 --overwrite",
    "sweep": "spk-classify sweep table.csv store other --classifiers ridge --layers 1",
    "curve": "spk-classify curve table.csv store sweep --seconds 2 --draws 1",
    "open-set": "spk-classify open-set table.csv store sweep",
    "fit": "spk-finetune fit table.csv --log-dir other --audio-root corpus/wav --max-epochs 1 "
    "--encoder demo --freeze-encoder-layers 4 --sessions 20990301_S_R001S01C01",
    "embed": "spk-finetune embed CHECKPOINT table.csv other --audio-root corpus/wav",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOCKING)
def test_every_command_that_locks_has_one_message_and_one_way_on(made, typed, monkeypatch, name):
    def none(handle, how):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    assert typed("spk-store merge store store2").exit_code == 0
    checkpoint = next(made.rglob("*.ckpt")).relative_to(made)
    line = LOCKING[name].replace("CHECKPOINT", str(checkpoint))
    monkeypatch.setattr(fcntl, "flock", none)
    done = typed(line)
    assert done.exit_code == 1
    told = [line for line in done.output.splitlines() if "cannot be locked" in line]
    assert len(told) == 1
    assert "pass --no-lock" in told[0]
    done = typed(f"{line} --no-lock")
    assert done.exit_code == 0, done.output
    assert done.output.count(UNLOCKED) == 1


BLOCKED = """
import sys
sys.modules["fcntl"] = None  # as on Windows: the import raises ModuleNotFoundError
import {module}
"""


@pytest.mark.parametrize(
    "module", [f"spk.{p}.cli" for p in ("manifests", "extract", "extract.store", "classify")]
)
def test_a_command_on_a_system_without_fcntl_is_told_so_in_one_line(module):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(module=module)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [NO_FCNTL]


def test_an_import_on_a_system_without_fcntl_says_so():
    program = BLOCKED.format(module="spk.extract.store.writer")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == f"ImportError: {NO_FCNTL}"
