"""Toy meetings with partly wrong labels, and features that show the truth."""

import numpy as np
import pytest

ERRORS = 4  # turns of each session with another speaker's name
LEARNT = {"layers": "1", "classifiers": "ridge", "jobs": 1}


def swap_labels(table, count=ERRORS, seed=0):
    """Return the table with `count` turns per session mislabelled, and {segment_id: the truth}."""
    rng = np.random.default_rng(seed)
    names, truth = table["speaker"].to_numpy(str).copy(), {}
    for rows in table.groupby("session").indices.values():
        for row in rng.choice(rows, count, replace=False):
            others = sorted({*table["speaker"].iloc[rows]} - {names[row]})
            truth[table["segment_id"].iloc[row]] = names[row]
            names[row] = rng.choice(others)
    return table.assign(speaker=names), truth


@pytest.fixture(scope="session")
def swapped(table):
    """A table in which four turns per session have a wrong name, and the right names."""
    return swap_labels(table)


@pytest.fixture(scope="session")
def swap():
    return swap_labels


@pytest.fixture(scope="session")
def learnt():
    return dict(LEARNT)
