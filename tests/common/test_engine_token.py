"""A Ray on a network address, as it is started by hand: with its token, and not without."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from ray_cluster import DRIVER, UNITS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}


def own_address():
    """Return this machine's address on a network, or skip."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect(("192.0.2.1", 9))  # nothing is sent
        address = asked.getsockname()[0]
        if not address.startswith("127."):
            return address
    return pytest.skip("this machine has no address on a network")


def free_port(address):
    """Return a port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind((address, 0))
        return listening.getsockname()[1]


def wait_until_heard(address, port, head):
    """Wait until something listens there."""
    limit = time.monotonic() + 120
    while True:
        with suppress(OSError):
            socket.create_connection((address, port), 1).close()
            return
        assert head.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.2)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Yield the address of a Ray with a token, and the file that holds it; end it by its ids."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    address, token = own_address(), tmp_path_factory.mktemp("token") / "auth_token"
    token.write_text(secrets.token_hex(32))
    port = free_port(address)
    with TemporaryDirectory(prefix="spk-ray-", dir="/tmp", ignore_cleanup_errors=True) as place:
        words = ["start", "--head", "--block", f"--node-ip-address={address}", f"--port={port}"]
        words += ["--num-cpus=1", "--object-store-memory=80000000", "--include-dashboard=false"]
        words += ["--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={place}"]
        with subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", *words],
            env={**os.environ, **TOKEN, "RAY_AUTH_TOKEN_PATH": str(token)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                wait_until_heard(address, port, process)
                yield f"{address}:{port}", token
            finally:
                end(process)


def end(process):
    """End a process that we started, and its own ones."""
    import psutil  # which Ray brings

    ours = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    for one in ours:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.kill()


def drive(address, environment):
    """Run the units of a toy job on a cluster; return the exit code, and what is said."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, address, "never", "0"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_with_the_token_the_cluster_does_the_work(head):
    address, token = head
    code, said, errors = drive(address, {**TOKEN, "RAY_AUTH_TOKEN_PATH": str(token)})
    assert (code, errors) == (0, "")
    assert sorted(said.splitlines()) == [f"unit {number}" for number in range(UNITS)]


def test_without_the_token_it_is_refused_before_anything_is_asked_of_it(head):
    address, token = head
    code, said, errors = drive(
        address, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": str(token)}
    )
    assert (code, said) == (1, "")
    assert "expected RAY_AUTH_MODE=token" in errors
    assert errors.count("\n") == 1


def test_with_another_token_the_cluster_refuses(head, tmp_path):
    address, _ = head
    other = Path(tmp_path, "other_token")
    other.write_text(secrets.token_hex(32))
    code, said, errors = drive(address, {**TOKEN, "RAY_AUTH_TOKEN_PATH": str(other)})
    assert (code, said) == (1, "")
    assert "Unauthenticated" in errors  # Ray's own lines come before ours
    assert f"--ray-address: '{address}' cannot be joined" in errors.splitlines()[-1]
