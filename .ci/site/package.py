"""Let the site's reference read the checkout as the package `spk`.

The reader of docstrings walks through all of a package's folder. The repository root is that of
`spk`, and holds environments and other people's code too, so it gets a folder of links to our own.
"""

import shutil
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("__init__.py", "common", "manifests", "extract", "classify", "finetune")


@event_priority(100)  # before mkdocstrings looks at its settings
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the folder of links, and name it to mkdocstrings."""
    folder = Path(tempfile.mkdtemp(prefix="spk-site-"))
    (folder / "spk").mkdir()
    for part in PARTS:
        (folder / "spk" / part).symlink_to(ROOT / part)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [str(folder)]
    config.extra["package"] = str(folder)
    return config


def on_post_build(config: MkDocsConfig) -> None:
    """Remove the links."""
    shutil.rmtree(config.extra["package"])
