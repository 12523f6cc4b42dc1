"""Make torchaudio importable beside a torch without CUDA, where and only where it is not.

The Linux wheel of torchaudio 2.11 links CUDA libraries, so beside a CPU build of torch the import
fails for want of ``libc10_cuda.so``. What spk uses of it is Python (`functional`, `transforms`);
without the compiled files it imports and works.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

SIGN = "libc10_cuda.so"


def failure() -> str:
    """Return what `import torchaudio` says in a fresh process; nothing when it succeeds."""
    command = [sys.executable, "-W", "ignore", "-c", "import torchaudio"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def main() -> None:
    """Remove torchaudio's compiled files if the import fails for want of CUDA, and say so."""
    problem = failure()
    if not problem:
        return
    spec = importlib.util.find_spec("torchaudio")
    if SIGN not in problem or spec is None or spec.origin is None:
        sys.exit(f"torchaudio: import fails for another reason than {SIGN}:\n{problem}")
    for file in sorted((Path(spec.origin).parent / "lib").glob("*.so")):
        print(f"torchaudio: {file.name} needs {SIGN}, which a CPU torch lacks; removed")
        file.unlink()
    problem = failure()
    if problem:
        sys.exit(f"torchaudio: still cannot be imported:\n{problem}")


if __name__ == "__main__":
    main()
