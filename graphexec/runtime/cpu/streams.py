"""The streams of the CPU: a worker thread each, which runs the tasks of its queue in order."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from graphexec.runtime.cpu.cores import silence_numpy
from graphexec.runtime.device import Step


class Streams:
    """`count` streams. Close them to end their threads."""

    def __init__(self, count: int) -> None:
        self._queues: list[SimpleQueue[Step | None]] = [SimpleQueue() for _ in range(count)]
        #: For each stream the function that puts a task into its queue.
        self.put = [queue.put for queue in self._queues]
        self._workers = [
            threading.Thread(target=_work, args=(q,), name=f"graphexec-stream-{s}", daemon=True)
            for s, q in enumerate(self._queues)
        ]

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
        for queue in self._queues:
            queue.put(None)
        for worker in self._workers:
            worker.join()


def _work(queue: SimpleQueue[Step | None]) -> None:
    silence_numpy()
    while (task := queue.get()) is not None:
        task()
