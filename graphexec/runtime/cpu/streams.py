"""The streams of the CPU: a worker thread each, which runs the tasks of its queue in order."""

from __future__ import annotations

import threading
import weakref
from queue import SimpleQueue

from graphexec.runtime.cpu.cores import silence_numpy
from graphexec.runtime.device import Step


class Streams:
    """`count` streams. Their threads end when this is closed or dropped."""

    def __init__(self, count: int) -> None:
        self._queues: list[SimpleQueue[Step | None]] = [SimpleQueue() for _ in range(count)]
        #: For each stream the function that puts a task into its queue.
        self.put = [queue.put for queue in self._queues]
        self._workers = [
            threading.Thread(target=_work, args=(q,), name=f"graphexec-stream-{s}", daemon=True)
            for s, q in enumerate(self._queues)
        ]
        self._end = weakref.finalize(self, _end, self._queues)
        self._end.atexit = False

    def start(self) -> None:
        """Start the threads."""
        for worker in self._workers:
            worker.start()

    def drain(self) -> None:
        """Wait until all queued tasks are done."""
        barriers = [threading.Event() for _ in self._queues]
        for put, barrier in zip(self.put, barriers, strict=True):
            put(barrier.set)
        for barrier in barriers:
            barrier.wait()

    def close(self) -> None:
        """End the threads after their queued tasks."""
        self._end()
        for worker in self._workers:
            worker.join()


def _end(queues: list[SimpleQueue[Step | None]]) -> None:
    for queue in queues:
        queue.put(None)


def _work(queue: SimpleQueue[Step | None]) -> None:
    silence_numpy()
    while (task := queue.get()) is not None:
        task()
        del task  # what a task refers to is not kept until the next one
