"""The thread that writes while the next batch is encoded."""

import threading
import time

import pytest

from spk.extract.pipeline.runner import BackgroundWriter

LONGEST = 10.0  # s to wait for a thread that should come at once


def test_what_is_put_is_done_in_order_in_a_thread_of_its_own():
    done = []
    with BackgroundWriter() as writing:
        for i in range(20):
            writing.put(lambda i=i: done.append((i, threading.current_thread().name)))
    assert done == [(i, "writer") for i in range(20)]


def fail():
    raise OSError("the disk is full")


def run(*works):
    """Put each of `works`; those that are exceptions are raised instead."""
    with BackgroundWriter() as writing:
        for work in works:
            if not callable(work):
                raise work
            writing.put(work)


def test_what_fails_there_ends_the_run_and_nothing_is_done_after_it():
    done = []
    with pytest.raises(OSError, match="the disk is full"):
        run(fail, lambda: done.append(1))
    assert done == []


def test_the_next_put_tells_that_writing_failed():
    put = []

    def put_until_told():
        with BackgroundWriter() as writing:
            writing.put(fail)
            deadline = time.monotonic() + LONGEST
            while time.monotonic() < deadline:
                writing.put(lambda: None)
            put.append("all the time")

    with pytest.raises(OSError, match="the disk is full"):
        put_until_told()
    assert put == []


def test_what_was_put_before_an_exception_is_done():
    done = []
    with pytest.raises(KeyError):
        run(lambda: done.append(1), lambda: done.append(2), KeyError())
    assert done == [1, 2]


def test_no_more_than_a_few_wait():
    go, begun = threading.Event(), threading.Event()
    put = []

    def slow():
        begun.set()
        go.wait(LONGEST)

    def fill():
        for i in range(9):
            writing.put(slow)
            put.append(i)

    with BackgroundWriter(waiting=2) as writing:
        filling = threading.Thread(target=fill)
        filling.start()
        assert begun.wait(LONGEST)
        filling.join(0.2)
        assert len(put) <= 3  # one under way, two waiting
        go.set()
        filling.join(LONGEST)
    assert len(put) == 9
