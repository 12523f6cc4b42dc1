"""Toy meetings, their features, and identity files of known people."""

import pandas as pd
import pytest
from toy_meetings import toy_people, toy_store, toy_table, toy_vectors


@pytest.fixture(scope="package")
def people():
    return toy_people()


@pytest.fixture(scope="package")
def table(people):
    return toy_table(people)


@pytest.fixture(scope="package")
def store(table, people, tmp_path_factory):
    return toy_store(tmp_path_factory.mktemp("toy") / "store", table, toy_vectors(table, people))


@pytest.fixture
def named(people, tmp_path):
    """Return a function that writes an identity file of some labels."""

    def write(labels):
        rows = [(session, speaker, people[session, speaker]) for session, speaker in labels]
        path = tmp_path / "known.csv"
        pd.DataFrame(rows, columns=["session", "speaker", "person"]).to_csv(path, index=False)
        return path

    return write
