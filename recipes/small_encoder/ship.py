"""Copy the best weights of a training to the folder that ships.

python ship.py OUT ../../extract/encoder/small [--which best]
"""

import argparse
import json
import shutil
from pathlib import Path

TRAINED_ON = "4.5 h of speech"  # of the 413 speakers of PACKED/speakers.csv that are not held out
FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


def main():
    """Copy the files; say in config.json how much speech they learnt from."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--name", default="small")
    parser.add_argument("--which", default="best", choices=("best", "last"))
    options = parser.parse_args()
    source = options.out / f"{options.name}-{options.which}"
    options.target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(source / name, options.target / name)
        (options.target / name).chmod(0o644)
    path = options.target / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    config["trained_on"] = TRAINED_ON
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    size = (options.target / "model.safetensors").stat().st_size
    print(f"{options.target}: {options.which} of {source.parent}, {size:,} bytes")


if __name__ == "__main__":
    main()
