"""Packaging of spk: the repository root is the package ``spk``.

The version stands in ``__init__.py``; a test holds CITATION.cff and CHANGELOG.md to it.
"""

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPackages(build_py):
    """Build the packages without this file, which lies in the root of `spk`."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return (package, module, file) of a package's modules."""
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[1] != Path(__file__).stem]


ROOT = Path(__file__).parent
README = ROOT / "README.md"
VERSION = re.findall(r'^__version__ = "(.+)"$', (ROOT / "__init__.py").read_text(), re.MULTILINE)
HOME = "https://github.com/spk-toolkit/spk"

PACKAGES = (
    "classify",
    "classify.auditing",
    "classify.classifiers",
    "classify.evaluation",
    "classify.linking",
    "classify.naming",
    "classify.report",
    "classify.selection",
    "common",
    "common.audio",
    "common.engine",
    "extract",
    "extract.encoder",
    "extract.pipeline",
    "extract.store",
    "finetune",
    "finetune.data",
    "finetune.model",
    "finetune.training",
    "manifests",
    "manifests.cutting",
    "manifests.demo",
    "manifests.formats",
    "manifests.splits",
    "manifests.text_files",
)

# What commands need beyond tables, stores and classifiers; `common/extras.py` tells who lacks it.
EXTRACT = ["torch>=2.4", "transformers>=4.45"]
FINETUNE = [*EXTRACT, "lightning>=2.4", "pyyaml>=6", "tensorboard>=2.14", "torchaudio>=2.4"]
AUDIT = ["cleanlab>=2.6"]
# Before 2.56 programs could be run by who was not allowed to; not in `all`: 70 MB. Ray Train, which
# trains one model in several processes, needs pydantic too (and fsspec, which torch brings).
RAY = ["ray>=2.56", "pydantic>=2.5"]
TREES = ["lightgbm>=4.3"]
# In the tests each reads what `manifests/formats` writes, and writes what it reads;
# `pyannote.metrics` checks the sums of `spk name score`.
LIBRARIES = [
    "audformat>=1.4",
    "lhotse>=1.33",
    "praatio>=6.2",
    "pyannote.core>=6.1",
    "pyannote.database>=6.1",
    "pyannote.metrics>=4.2",
    "pympi-ling>=1.71",
    "srt>=3.5",
    "urllib3>=2",  # lhotse imports it and does not list it
    "webvtt-py>=0.6",
]

# The site of `make docs`, and the notebooks beside it, which the tests run.
DOCS = [
    "ipykernel>=6.29",
    "mkdocs-click>=0.8",
    "mkdocs-material>=9.5",
    "mkdocstrings[python]>=0.26",
    "nbclient>=0.10",
    "nbformat>=5.10",
]

setup(
    name="spk-toolkit",
    version=VERSION[0],
    description="Who speaks in each segment of a meeting: cached layer-wise encoder features, "
    "classifiers in seconds, honest scores",
    long_description=README.read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The spk authors",
    project_urls={
        "Homepage": HOME,
        "Documentation": f"{HOME}/tree/main/docs",
        "Source": HOME,
        "Issues": f"{HOME}/issues",
        "Changelog": f"{HOME}/blob/main/CHANGELOG.md",
    },
    keywords=[
        "speaker identification",
        "speaker recognition",
        "speaker diarization",
        "meetings",
        "speech",
        "wav2vec2",
        "layer-wise features",
        "AISHELL-4",
    ],
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    cmdclass={"build_py": BuildPackages},
    package_dir={"spk": "."},
    packages=["spk", *(f"spk.{package}" for package in PACKAGES)],
    package_data={
        "spk": ["py.typed"],
        "spk.classify.report": ["templates/*"],
        "spk.extract.encoder": ["small/*"],
        "spk.finetune": ["presets/*.yaml"],
        "spk.manifests.demo": ["sample/*"],
    },
    include_package_data=False,
    install_requires=[
        "click>=8.1",
        "h5py>=3.10",
        "jinja2>=3.1",
        "joblib>=1.4",  # parallel results as they come
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pandas>=2.2",
        "pyarrow>=14",
        "rich>=13.7",
        "scikit-learn>=1.5",
        "scipy>=1.11",
        "soundfile>=0.12",
        "tqdm>=4.66",
    ],
    extras_require={
        "audit": AUDIT,
        "extract": EXTRACT,
        "finetune": FINETUNE,
        "ray": RAY,
        "trees": TREES,
        "all": [*AUDIT, *FINETUNE, *TREES],
        "dev": [
            "build>=1.2",
            "hypothesis>=6.100",
            "mypy>=1.11",
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "ruff>=0.6",
            "twine>=6.1",
            *DOCS,
            *LIBRARIES,
            *RAY,
        ],
    },
    entry_points={
        "console_scripts": [
            "spk=spk.__main__:main",
            "spk-manifests=spk.manifests.cli:main",
            "spk-extract=spk.extract.cli:main",
            "spk-store=spk.extract.store.cli:store",
            "spk-classify=spk.classify.cli:main",
            "spk-name=spk.classify.naming.cli:main",
            "spk-finetune=spk.finetune.cli:main",
        ]
    },
    # Folders are locked by flock (fcntl), signals blocked by pthread_sigmask: not on Windows.
    # macOS has both, and nobody has tried it: what is claimed here, the tests ran on.
    platforms=["Linux"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
