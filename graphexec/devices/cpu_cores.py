"""Sharing cores: between commands that run side by side, and with the BLAS library's threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

Body = Callable[[int, int], None]
_PARTS_A_CORE = 4  # so that a core that comes late still finds something to do


class Cores:
    """Hands idle cores to commands that can split their work."""

    def __init__(self, cores: int) -> None:
        self.count = max(1, cores)
        self._busy = 0
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def busy(self) -> Iterator[None]:
        """The calling thread occupies a core."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

    def parallel(self, n: int, body: Body, parts: int | None = None) -> None:
        """Call `body(low, high)` over `parts` ranges of 0 to n, on this thread and idle cores.

        The ranges depend on n and the number of cores only. The first exception is raised.
        """
        if n == 0:
            return
        parts = min(n, parts or _PARTS_A_CORE * self.count)
        bounds = [n * i // parts for i in range(parts + 1)]
        ranges = pairwise(bounds)
        lock = threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    part = next(ranges, None)
                if part is None:
                    return
                body(*part)

        helpers = self._borrow(parts - 1)
        try:
            futures = [self._threads().submit(work) for _ in range(helpers)]
            try:
                work()
            finally:
                wait(futures)
            for future in futures:
                future.result()
        finally:
            with self._lock:
                self._busy -= helpers

    def _borrow(self, wanted: int) -> int:
        with self._lock:
            got = max(0, min(wanted, self.count - self._busy))
            self._busy += got
        return got

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(
                    self.count, thread_name_prefix="graphexec-core", initializer=silence_numpy
                )
            return self._pool

    def close(self) -> None:
        """End the helper threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def silence_numpy() -> None:
    """Let this thread compute NaN and infinities without warnings, as a GPU does."""
    np.seterr(all="ignore")


_blas_lock = threading.Lock()
_blas_users = 0
_blas_limit: Any = None


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """BLAS libraries use one thread while any caller is inside.

    The setting belongs to the process, so nested and overlapping users are counted: the first
    one in saves it and the last one out restores it.
    """
    global _blas_users, _blas_limit
    with _blas_lock:
        _blas_users += 1
        if _blas_users == 1:
            _blas_limit = _controller().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _blas_limit.restore_original_limits()


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
