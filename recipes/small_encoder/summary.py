"""Print what the logs of trainings say as tables: trials, the curve of one training, its layers.

python summary.py OUT/log.jsonl [OTHER/log.jsonl ...]
"""

import json
import sys
from pathlib import Path

SHOWN = {
    "meeting_centroid": "meetings, centroid",
    "meeting_lda": "meetings, LDA",
    "rooms_centroid": "rooms, centroid",
    "rooms_lda": "rooms, LDA",
    "eer": "EER",
    "open_eer": "open-set EER",
    "score": "score",
}


def read(paths):
    """Return the rows of all logs, in their order."""
    return [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]


def table(title, heads, rows):
    """Print a Markdown table; nothing where there is no row."""
    if not rows:
        return
    print(f"\n{title}\n")
    print("| " + " | ".join([*heads, *SHOWN.values()]) + " |")
    print("|" + "---|" * (len(heads) + len(SHOWN)))
    for row, cells in rows:
        numbers = [f"{row[name]:.3f}" for name in SHOWN]
        print("| " + " | ".join([*cells, *numbers]) + " |")


def main(paths):
    """Print the tables."""
    rows = read(paths)
    sizes = {r["name"]: r["parameters"] for r in rows if r["event"] == "encoder"}
    unique = {r["name"]: r for r in rows if r["event"] == "baseline"}
    table("What others reach on the same rows", ["name"], [(r, [n]) for n, r in unique.items()])
    trials = [r for r in rows if r["event"] == "trial"]
    table(
        "Trials",
        ["trial", "parameters", "steps", "crops"],
        [
            (r, [r["name"], f"{sizes[r['name']]:,}", str(r["steps"]), f"{r['crops']:,}"])
            for r in trials
        ],
    )
    trial_names = {r["name"] for r in trials}
    checks = {r["step"]: r for r in rows if r["event"] == "check" and r["name"] not in trial_names}
    table(
        "Curve",
        ["step", "crops", "minutes"],
        [(r, [str(s), f"{r['crops']:,}", f"{r['seconds'] / 60:.1f}"]) for s, r in checks.items()],
    )
    layers = {r["layer"]: r for r in rows if r["event"] == "layer" and r["name"] not in trial_names}
    table("Layers", ["layer"], [(r, [str(layer)]) for layer, r in layers.items()])


if __name__ == "__main__":
    main(sys.argv[1:])
