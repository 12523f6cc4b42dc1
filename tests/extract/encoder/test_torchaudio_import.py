"""A torchaudio whose compiled files do not fit: a stand-in package, in a process of its own."""

import os
import subprocess
import sys

import pytest

EXTENSION = """
raise {problem}
"""
INIT = """
from . import _extension
from . import functional
"""
FUNCTIONAL = """
from torchaudio._extension import _IS_TORCHAUDIO_EXT_AVAILABLE, fail_if_no_align
COMPILED = _IS_TORCHAUDIO_EXT_AVAILABLE

@fail_if_no_align
def speed(): return "in Python"
"""
USE = """
from spk.extract.encoder.torchaudio_import import import_torchaudio
from spk.common.errors import InputError
try:
    print(import_torchaudio().functional.speed(), import_torchaudio().functional.COMPILED)
except InputError as problem:
    print(problem)
"""


def told(folder, use=USE, **files):
    """Return what a process says that imports the torchaudio of these files."""
    package = folder / "torchaudio"
    package.mkdir()
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", use]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "problem",
    [
        'OSError("libc10_cuda.so: cannot open shared object file")',
        'RuntimeError("Detected that PyTorch and TorchAudio were compiled with different CUDA")',
        'ImportError("Failed to load libtorchaudio")',
    ],
)
def test_torchaudio_is_had_without_compiled_files_that_do_not_fit(tmp_path, problem):
    files = {"__init__": INIT, "functional": FUNCTIONAL}
    assert told(tmp_path, **files, _extension=EXTENSION.format(problem=problem)) == (
        "in Python False"
    )


@pytest.mark.slow
def test_mfcc_needs_no_compiled_files(tmp_path):
    use = "from spk.extract.encoder.mfcc import CepstralFrontEnd as F; print(F().shortest)"
    broken = EXTENSION.format(problem='OSError("libc10_cuda.so")')
    files = {"__init__": INIT, "functional": FUNCTIONAL, "_extension": broken}
    assert told(tmp_path, use, **files) == "400"


def test_a_torchaudio_that_fails_all_the_same_is_told(tmp_path):
    broken = INIT + 'raise OSError("no such symbol\\nand more")'
    files = {"functional": FUNCTIONAL, "_extension": EXTENSION.format(problem="OSError(0)")}
    assert told(tmp_path, __init__=broken, **files) == (
        "torchaudio: import fails (no such symbol), expected one that fits torch; install such a "
        "build"
    )


def test_a_torchaudio_that_is_not_there_is_told_with_its_extra(monkeypatch):
    from spk.common.errors import InputError
    from spk.extract.encoder.torchaudio_import import import_torchaudio

    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(InputError, match=r"torchaudio: is not installed, .*spk-toolkit\[finetune"):
        import_torchaudio()
