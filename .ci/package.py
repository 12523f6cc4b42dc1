"""Build wheel and sdist, look into both, and run each from an empty environment.

The wheel is also installed as `pip install spk-toolkit` does it, without extras, and used. The
sdist is what git tracks: unpacked, its own tests are found, and those of the description run.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("common", "manifests", "extract", "classify", "finetune")
TEMPLATES = ROOT / "classify" / "report" / "templates"
SMALL = ROOT / "extract" / "encoder" / "small"
SAMPLE = ROOT / "manifests" / "demo" / "sample"
# Most bytes of a file that is not code: weights, a meeting.
LARGEST = {SMALL / "model.safetensors": 8_000_000, SAMPLE / "sample.ogg": 2_000_000}


def run(*command: str, cwd: Path = ROOT, **variables: str) -> str:
    """Run a command, show what it says when it fails, return its output."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def expected_files() -> set[str]:
    """Return the wheel's files as the checkout has them."""
    modules = {
        f"spk/{file.relative_to(ROOT).as_posix()}"
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
    }
    presets = {
        f"spk/{file.relative_to(ROOT).as_posix()}" for file in ROOT.glob("finetune/presets/*.yaml")
    }
    data = {
        f"spk/{file.relative_to(ROOT).as_posix()}"
        for folder in (TEMPLATES, SMALL, SAMPLE)
        for file in folder.iterdir()
    }
    root = {"spk/__init__.py", "spk/__main__.py", "spk/info.py", "spk/py.typed"}
    return modules | presets | data | root


def check_wheel(wheel: Path) -> None:
    """Refuse a wheel that holds anything but the packages and its own description."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    if names != expected_files():
        sys.exit(f"{wheel.name}: differs from the checkout in {sorted(names ^ expected_files())}")
    for file, most in LARGEST.items():
        if file.stat().st_size > most:
            sys.exit(f"{file}: is {file.stat().st_size:,} bytes, expected at most {most:,}")


def check_sdist(sdist: Path, folder: Path) -> None:
    """Refuse an sdist that is not the checkout, or whose own tests cannot be run from it."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    tracked = set(run("git", "ls-files").splitlines())
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    made = {name for name in files if name.startswith("spk_toolkit.egg-info/")}
    differences = (files - made - {"PKG-INFO", "setup.cfg"}) ^ tracked
    if differences:
        sys.exit(f"{sdist.name}: differs from what git tracks in {sorted(differences)[:10]}")
    as_spk = folder / "as_spk"
    as_spk.mkdir()
    (as_spk / "spk").symlink_to(root)
    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    variables = {"PYTHONPATH": str(as_spk), "OMP_NUM_THREADS": "1"}
    lines = run(*pytest, "--collect-only", cwd=root, **variables).splitlines()
    run(*pytest, "tests/test_metadata.py", "tests/test_umbrella.py", cwd=root, **variables)
    print(f"{sdist.name}: is the checkout; unpacked, {lines[-1]}")


def check_install(archive: Path, folder: Path) -> None:
    """Install an archive without its dependencies but click; every command must answer --help."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    constraints = ("-c", str(ROOT / "constraints.txt"))
    run(python, "-m", "pip", "install", "-q", "--no-deps", str(archive), cwd=folder)
    run(python, "-m", "pip", "install", "-q", *constraints, "click", cwd=folder)
    for command in (
        "spk",
        "spk-manifests",
        "spk-extract",
        "spk-store",
        "spk-classify",
        "spk-name",
        "spk-finetune",
    ):
        if "Usage:" not in run(str(folder / "bin" / command), "--help", cwd=folder):
            sys.exit(f"{archive.name}: {command} --help shows no usage")


def check_light_use(wheel: Path, folder: Path) -> None:
    """Install the wheel with what it needs and no extra, and do with it what that promises."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    constraints = ("-c", str(ROOT / "constraints.txt"))
    run(python, "-m", "pip", "install", "-q", *constraints, str(wheel), cwd=folder)
    run(python, "-I", str(ROOT / ".ci" / "light_use.py"), cwd=folder)


def main() -> None:
    """Build, look, install and run."""
    with tempfile.TemporaryDirectory() as scratch:
        dist = Path(scratch) / "dist"
        run(sys.executable, "-m", "build", "--outdir", str(dist), str(ROOT))
        (wheel,) = dist.glob("*.whl")
        (sdist,) = dist.glob("*.tar.gz")
        print(run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)))
        check_wheel(wheel)
        check_sdist(sdist, Path(scratch) / "unpacked")
        for archive in (wheel, sdist):
            check_install(archive, Path(scratch) / archive.suffix.lstrip("."))
            print(f"{archive.name}: installs into an empty environment, its commands answer")
        check_light_use(wheel, Path(scratch) / "light")
        print(f"{wheel.name}: tables, stores and classifiers run without any extra")


if __name__ == "__main__":
    main()
