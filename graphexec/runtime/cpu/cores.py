"""Sharing cores: between concurrent commands, and with the BLAS library's threads."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

import numpy as np

Body = Callable[[int, int], None]
_End = SimpleQueue[BaseException | None]
_Tasks = SimpleQueue[tuple[Callable[[], None], _End] | None]
_PARTS_A_CORE = 4  # so that a core that becomes idle late still gets work


class Cores:
    """Hands idle cores to commands that can split their work, as for `split` cores (by default as
    many as there are)."""

    def __init__(self, cores: int, split: int | None = None) -> None:
        self.count = max(1, cores)
        self.split = max(1, split or cores)
        self._busy = 0
        self._lock = threading.Lock()
        self._helpers: list[_Helper] = []  # idle ones
        self._ending = weakref.finalize(self, _end, self._helpers)
        self._ending.atexit = False

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

        The ranges depend on n, `parts` and `split` only. The first exception is raised.
        """
        if n == 0:
            return
        parts = min(n, parts or _PARTS_A_CORE * self.split)
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

        with self._borrowed(parts - 1) as helpers, _apart(helpers):
            for helper in helpers:
                helper.begin(work)
            try:
                work()
            finally:
                failures = [helper.end() for helper in helpers]
        for failure in failures:
            if failure is not None:
                raise failure

    @contextmanager
    def _borrowed(self, most: int) -> Iterator[list[_Helper]]:
        """Up to `most` helpers, as many as there are idle cores."""
        with self._lock:
            count = max(0, min(most, self.count - self._busy))
            helpers = [self._helpers.pop() if self._helpers else _Helper() for _ in range(count)]
            self._busy += count
        try:
            yield helpers
        finally:
            with self._lock:
                self._busy -= count
                self._helpers += helpers

    def close(self) -> None:
        """End the helper threads."""
        for helper in _end(self._helpers):
            helper.join()


class _Helper:
    """A thread that runs tasks of other threads."""

    def __init__(self) -> None:
        self._tasks: _Tasks = SimpleQueue()
        self._end: _End = SimpleQueue()  # of the last task
        self._cores: set[int] = set()
        self._thread = threading.Thread(
            target=_work, args=(self._tasks,), name="graphexec-core", daemon=True
        )
        self._thread.start()

    def keep_to(self, cores: set[int]) -> None:
        """Restrict the thread to these cores."""
        if cores != self._cores:
            os.sched_setaffinity(self._thread.native_id or 0, cores)
            self._cores = cores

    def begin(self, task: Callable[[], None]) -> None:
        """Start a task."""
        self._end = SimpleQueue()
        self._tasks.put((task, self._end))

    def end(self) -> BaseException | None:
        """Wait for the task; returns the exception it raised, if any."""
        return self._end.get()

    def close(self) -> None:
        """Let the thread end."""
        self._tasks.put(None)

    def join(self) -> None:
        """Wait for the end of the thread."""
        self._thread.join()


def _work(tasks: _Tasks) -> None:
    silence_numpy()
    while (found := tasks.get()) is not None:
        _perform(*found)
        del found  # what a task refers to is not kept until the next one


def _perform(task: Callable[[], None], end: _End) -> None:
    failure = None
    try:
        task()
    except BaseException as exc:  # raised again by the caller
        failure = exc
    end.put(failure)
    del failure  # it refers to this frame


def _end(helpers: list[_Helper]) -> list[_Helper]:
    """Let the threads of helpers end, and forget them; returns them."""
    ended = list(helpers)
    helpers.clear()
    for helper in ended:
        helper.close()
    return ended


@contextmanager
def _apart(helpers: list[_Helper]) -> Iterator[None]:
    """Pin the calling thread to its core and its helpers to others.

    Under little load, Linux wakes a thread on the core of the thread that wakes it, and may keep
    or put both there for tens of milliseconds.
    """
    cores = os.sched_getaffinity(0)
    own = {_this_core()}
    if not helpers or not own < cores:
        yield
        return
    try:
        with suppress(OSError):  # without pinning they run on any core
            os.sched_setaffinity(0, own)
            for helper in helpers:
                helper.keep_to(cores - own)
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, cores)


def _this_core() -> int:
    number: int = _libc().sched_getcpu()
    return number


@cache
def _libc() -> Any:
    return ctypes.PyDLL(None)  # these calls are too short to release the GIL


def silence_numpy() -> None:
    """Let this thread compute NaN and infinities without warnings, as a GPU does."""
    np.seterr(all="ignore")


_blas_lock = threading.RLock()  # reentrant: finalizers may run while it is held
_blas_users = 0
_blas_limit: Any = None


def limit_blas() -> Callable[[], None]:
    """BLAS libraries use one thread until the function that is returned is called, once or more.

    The setting belongs to the process, so users are counted: the first one saves it and the last
    one restores it.
    """
    global _blas_users, _blas_limit
    with _blas_lock:
        _blas_users += 1
        if _blas_users == 1:
            _blas_limit = _controller().limit(limits=1, user_api="blas")
    inside = [True]

    def release() -> None:
        global _blas_users
        with _blas_lock:
            if not inside:
                return
            inside.clear()
            _blas_users -= 1
            if _blas_users == 0:
                _blas_limit.restore_original_limits()

    return release


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """BLAS libraries use one thread while any caller is inside."""
    release = limit_blas()
    try:
        yield
    finally:
        release()


def _leave_blas_to_child() -> None:
    """A fork has no threads, so no runs: nobody will restore the setting of those in its parent."""
    global _blas_lock, _blas_users
    _blas_lock = threading.RLock()
    if _blas_users:
        _blas_users = 0
        _blas_limit.restore_original_limits()


os.register_at_fork(after_in_child=_leave_blas_to_child)


@cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
