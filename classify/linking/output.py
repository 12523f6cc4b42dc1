"""Write the files of linked labels, and summarise them.

``people.csv`` is the input of ``--identity``; ``unsure.csv`` lists the labels left out of it;
``links.csv`` every scored pair; ``series.csv`` ids that are several people in a series;
``link.json`` settings, encoder and the basis of the confidence. Either all are written or none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.counts import counted
from ...common.files import atomic_write
from ...common.outputs import check_own_folder, has_to_be_written, protecting
from ..naming.decision import rounded_down

if TYPE_CHECKING:
    from .people import Links

MARK = "link.json"
PEOPLE, UNSURE, LINKS, SERIES = "people.csv", "unsure.csv", "links.csv", "series.csv"


def write_links(links: Links, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write linked labels to a folder, and return the files.

    Raises
    ------
    InputError
        A file exists with other content, or cannot be written.
    """
    folder = Path(folder)
    tables = {PEOPLE: links.people, UNSURE: links.unsure, LINKS: links.pairs, SERIES: links.series}
    check_own_folder(folder, MARK, list(tables))
    contents = {MARK: (json.dumps(links.facts, ensure_ascii=False, indent=1) + "\n").encode()}
    for name, table in tables.items():
        contents[name] = table.to_csv(index=False, lineterminator="\n").encode()
    paths = {folder / name: content for name, content in contents.items()}
    with protecting([] if overwrite else [folder]):
        for path, content in paths.items():
            has_to_be_written(path, content)
    for path, content in paths.items():
        atomic_write(path, content)
    return list(paths)


def summary(links: Links) -> Iterator[str]:
    """Yield the result: persons, and how many labels are unsure, and why."""
    people, unsure = links.people, links.unsure
    seen = people.groupby("person")["session"].nunique()
    yield (
        f"{counted(len(people), 'label', 'is', of=len(people) + len(unsure))} "
        f"{counted(len(seen), 'person')}, {int((seen > 1).sum())} of them in several sessions"
    )
    if len(unsure):
        reasons = unsure["reason"].value_counts()
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        yield f"left out as unsure: {counted(len(unsure), 'label')} ({why}), listed in {UNSURE}"


def series_lines(links: Links) -> Iterator[str]:
    """Yield a line for each id that is not one person in its series."""
    for (series, speaker), part in links.series.groupby(["series", "speaker"], sort=True):
        columns = zip(part["person"], part["session"], strict=True)
        who = ", ".join(f"{person or 'somebody'} in {session}" for person, session in columns)
        chance = rounded_down(part["probability"].max(), 2)
        yield f"{series}: {speaker} is not one person: {who} (probability {chance:.2f})"
