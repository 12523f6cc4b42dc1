"""Packaging of spk: the repository root is the package ``spk``."""

from pathlib import Path

from setuptools import setup

README = Path(__file__).with_name("README.md")

setup(
    name="spk-toolkit",
    version="0.1.0",
    description="Who speaks in each segment of a meeting: cached layer-wise encoder features, "
    "classifiers in seconds, honest scores",
    long_description=README.read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    package_dir={"spk": "."},
    packages=["spk", "spk.manifests", "spk.extract", "spk.classify"],
    package_data={"spk": ["py.typed"]},
    include_package_data=False,
    install_requires=[
        "click>=8.1",
        "h5py>=3.10",
        "lightgbm>=4.3",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pandas>=2.2",
        "pyarrow>=14",
        "scikit-learn>=1.5",
        "scipy>=1.11",
        "soundfile>=0.12",
        "torch>=2.4",
        "torchaudio>=2.4",
        "tqdm>=4.66",
        "transformers>=4.45",
    ],
    extras_require={
        "dev": [
            "build>=1.2",
            "hypothesis>=6.100",
            "mypy>=1.11",
            "pytest>=8.2",
            "ruff>=0.6",
        ]
    },
    entry_points={
        "console_scripts": [
            "spk-manifests=spk.manifests.cli:main",
            "spk-extract=spk.extract.cli:main",
            "spk-store=spk.extract.store_cli:store",
            "spk-classify=spk.classify.cli:main",
        ]
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Typing :: Typed",
    ],
)
