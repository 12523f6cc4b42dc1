"""The way of a segment: the package's functions that run from ``spk-extract`` to a committed row.

Usage: ``python benchmarks/way.py [--list] [--root FOLDER]``. One run of the command, in this
process, takes a few segments of noise through the demo encoder; every call of a function of the
package is noted, in all threads. Printed are the files and functions that were called, and the
deepest level: calls of the package's own functions that were open at once in one thread. The first
line is the whole command (its options, checks, the table, the encoder's loading); the second only
what is called while batches run, from the first sample that is decoded to the last commit. Calls
made while a module is imported (decorators, mostly) are not on the way.

``--list`` names each function with its level; ``--root`` measures another checkout, named by a
folder that holds it as ``spk``.
"""

import argparse
import sys
import tempfile
import threading
from collections.abc import Collection
from pathlib import Path
from types import CodeType, FrameType

SECONDS, RATE, SEGMENTS = 1.0, 16000, 40  # of a segment; Hz; more than one batch of 20 s
RUNNING = ("ExtractionRun.encode", "Job.encode")  # today's name and that of 0.1.0
UNNAMED = ("<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>")  # loops, not functions


class Way:
    """The calls of functions below a folder: `levels` is code -> the deepest level it was at.

    `running` are those that were called while batches run.
    """

    def __init__(self, root: Path) -> None:
        self.root = f"{root}/"
        self.levels: dict[CodeType, int] = {}
        self.running: set[CodeType] = set()

    def note(self, frame: FrameType, event: str, _argument: object) -> None:
        """Note a call; a profiling function for `sys.setprofile`."""
        if event != "call" or not self._counts(frame.f_code):
            return
        level, above = 0, frame
        running = threading.current_thread() is not threading.main_thread()
        while above is not None:
            if above.f_code.co_name == "<module>" and above.f_code.co_filename != __file__:
                return  # a module is being imported
            level += self._counts(above.f_code)
            running |= above.f_code.co_qualname in RUNNING
            above = above.f_back
        self.levels[frame.f_code] = max(level, self.levels.get(frame.f_code, 0))
        if running:
            self.running.add(frame.f_code)

    def _counts(self, code: CodeType) -> bool:
        ours = code.co_filename.startswith(self.root) and code.co_filename != __file__
        return ours and code.co_name not in UNNAMED and bool(code.co_flags & 2)  # CO_NEWLOCALS

    def sum_up(self, codes: Collection[CodeType]) -> str:
        """Return how many files and functions some codes are, and their deepest level."""
        files = {code.co_filename for code in codes}
        deepest = max(self.levels[code] for code in codes)
        return f"files {len(files)}, functions {len(codes)}, deepest level {deepest}"


def write_inputs(folder: Path) -> Path:
    """Write a recording of noise and a table of its segments; return the table's path."""
    import numpy as np
    import pandas as pd
    import soundfile

    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, int(SEGMENTS * SECONDS * RATE)).clip(-1, 1)
    soundfile.write(folder / "a.flac", noise, RATE, subtype="PCM_16")
    starts = np.arange(SEGMENTS) * SECONDS
    table = pd.DataFrame(
        {
            "segment_id": [f"a-{place:03d}" for place in range(SEGMENTS)],
            "session": "a",
            "speaker": [f"s{place % 2}" for place in range(SEGMENTS)],
            "audio": "a.flac",
            "start": starts,
            "end": starts + SECONDS,
        }
    )
    table.to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def measure() -> Way:
    """Run the command once and return its way."""
    from spk.extract import cli

    way = Way(Path(cli.__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [str(write_inputs(folder)), str(folder / "store"), "--encoder", "demo"]
        words += ["--audio-root", name, "--workers", "2"]
        threading.setprofile(way.note)
        sys.setprofile(way.note)
        try:
            cli.main(words, standalone_mode=False)
        except SystemExit as ended:
            if ended.code:
                raise
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return way


def main() -> None:
    """Print what one run calls."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="name each function with its level")
    parser.add_argument("--root", type=Path, help="folder that holds another checkout as spk")
    args = parser.parse_args()
    if args.root:
        sys.path.insert(0, str(args.root))
    way = measure()
    if args.list:
        for code, level in sorted(way.levels.items(), key=lambda item: (item[1], item[0].co_name)):
            print(f"{level:3} {code.co_filename.removeprefix(way.root)}: {code.co_qualname}")
    print(f"the whole command: {way.sum_up(way.levels)}")
    print(f"while batches run: {way.sum_up(way.running)}")


if __name__ == "__main__":
    main()
