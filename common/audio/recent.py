"""A cache of large objects that are costly to make: each is made by one thread, others wait."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """An object that knows its size."""

    @property
    def nbytes(self) -> int:
        """Bytes that it occupies."""


Thing = TypeVar("Thing", bound=Sized)


class Recent(Generic[Thing]):
    """The most recently used objects, up to `limit` bytes; the last one is always kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._futures: OrderedDict[Hashable, Future[Thing]] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._futures

    def __len__(self) -> int:
        return len(self._futures)

    def get(self, key: Hashable, make: Callable[[], Thing]) -> Thing:
        """Return the object of a key; otherwise `make` it, or wait for the thread that does."""
        with self._lock:
            future, mine = self._futures.get(key), False
            if future is None:
                future, mine = self._futures.setdefault(key, Future()), True
            self._futures.move_to_end(key)
        if mine:
            try:
                future.set_result(make())
            except BaseException as problem:
                with self._lock:
                    self._futures.pop(key, None)
                future.set_exception(problem)
                raise
            self._forget()
        return future.result()

    def _forget(self) -> None:
        with self._lock:
            done = [(k, f.result().nbytes) for k, f in self._futures.items() if f.done()]
            total = sum(size for _, size in done)
            for key, size in done[:-1]:
                if total > self._limit:
                    del self._futures[key]
                    total -= size
