"""Draw the picture of the README: a report of `small` and `mfcc` on the six meetings.

    OMP_NUM_THREADS=1 python benchmarks/picture.py MEETINGS WORK docs/images/report.png

MEETINGS has ``TextGrid`` and ``wav``; WORK is a folder for the runs and the whole report. The
report is photographed in a headless Chromium (`tests/browser.py`).
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import Browser, find_browser

RUNS = ("small", "mfcc")
WITHOUT_SCROLLBARS = (
    "document.head.append(Object.assign(document.createElement('style'), "
    "{textContent: '* {scrollbar-width: none}'}))"
)
WIDTH, HEIGHT = 1260, 862  # pixels: the summary and the table of runs


def write_report(meetings: Path, work: Path) -> Path:
    """Type the commands that make the report; return its path."""
    work.mkdir(parents=True, exist_ok=True)
    audio = f"--audio-root {meetings / 'wav'}"
    lines = [
        f"manifests rttm {meetings / 'TextGrid'} turns.csv {audio}",
        "manifests select turns.csv segments.csv --min-seconds 1.5",
        "manifests split segments.csv table.csv",
    ]
    for run in RUNS:
        lines.append(f"extract table.csv {run}.features {audio} --encoder {run}")
        lines.append(f"classify sweep table.csv {run}.features {run}")
    lines.append(f"classify report {' '.join(RUNS)} --table table.csv {audio} -o report.html")
    for line in lines:
        subprocess.run([sys.executable, "-m", "spk", *line.split()], cwd=work, check=True)
    return work / "report.html"


def main() -> None:
    """Make the report and write its picture."""
    meetings, work, picture = (Path(word).resolve() for word in sys.argv[1:])
    report = write_report(meetings, work)
    program = find_browser()
    if program is None:
        raise SystemExit("no Chromium is installed, expected one; apt-get install chromium")
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, Path(profile))
        try:
            browser.open(report)
            browser.run(WITHOUT_SCROLLBARS)
            picture.write_bytes(browser.look(width=WIDTH, height=HEIGHT, whole=False))
        finally:
            browser.close()


if __name__ == "__main__":
    main()
