"""A first look at what a GPU makes of spk: sections in order of worth, each on its own.

Usage: ``python benchmarks/gpu/probe.py OUT_FOLDER [--device cuda] [--only stream,exactness]``.
Each finding is a JSON line in OUT_FOLDER/probe.jsonl and on stdout, flushed at once. A section that
fails says so and the next one runs; none starts after ``--limit`` seconds. The encoder has random
weights: speed and rounding are real, features mean nothing. Exit code 1 where something failed.
"""

import argparse
import gc
import sys
import traceback
from pathlib import Path

import torch
from device_sections import attention, exactness, kernels, parts, stream, training
from findings import Findings
from host_sections import decode, machine, writer
from inputs import SHAPES, Inputs

SECTIONS = {
    section.__name__: section
    for section in (
        *(machine, stream, kernels, parts, attention),
        *(exactness, training, writer, decode),
    )
}


def parse() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=SHAPES, default="large")
    parser.add_argument("--rttm", type=Path, help="folder of RTTMs that lengths are drawn from")
    parser.add_argument("--batches", type=int, default=40, help="of a case of `stream`")
    parser.add_argument("--batch-seconds", type=float, default=240.0, help="the default on a GPU")
    parser.add_argument("--limit", type=float, default=280.0, help="s")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, by comma")
    args = parser.parse_args()
    absent = [name for name in args.only.split(",") if name not in SECTIONS]
    if absent:
        parser.error(f"--only: {absent} are no sections, expected some of {list(SECTIONS)}")
    return args


def main() -> int:
    """Run the sections that were asked for; return the exit code."""
    args = parse()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    findings = Findings(args.out / "probe.jsonl")
    device = torch.device(args.device)
    inputs = Inputs(args.size, device, args.rttm, args.batches, args.batch_seconds)
    for name in args.only.split(","):
        if findings.seconds() > args.limit:
            findings.say("left out", section=name)
            continue
        try:
            SECTIONS[name](inputs, findings)
        except Exception as problem:
            traceback.print_exc()
            findings.fail("section", problem, section=name)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    findings.say("end", failed=findings.failed)
    return int(findings.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
