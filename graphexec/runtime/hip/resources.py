"""The resources of a session on the device, and their release.

They are freed in reverse order once the streams are idle: by `close`, or when the session is
dropped or the interpreter ends. Resources of a hanging device cannot be freed and are kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from graphexec.base.interrupts import own, uninterrupted
from graphexec.runtime.hip.bindings import Bindings, HipError
from graphexec.runtime.process import Process

Stream = Any

EXIT_PATIENCE = 5.0
"""Seconds that dropping a session, or the end of the interpreter, waits for its streams."""
GRACE = 0.5
"""Seconds to check whether a device that hung has recovered."""
_abandoned: list[Resources] = []  # of sessions closed while the device hung
_SPIN = 2e-3  # seconds of polling without a pause: longer than most runs of one graph


class Resources:
    """The streams and other resources of a session."""

    def __init__(self, hip: Bindings, device: int) -> None:
        self._hip, self._device = hip, device
        self._owned = ExitStack()
        self._process = Process()
        self._threads = threading.local()
        self.streams: list[Stream] = []
        #: Called now and then while the host waits; what it raises ends the waiting.
        self.look: Callable[[], object] | None = None
        self.kept: list[Any] = []  # arrays in use; kept while the device hangs

    def enter_thread(self) -> None:
        """Make the device current: each thread has a current device."""
        if not getattr(self._threads, "entered", False) or self._hip.platform.devices > 1:
            self._hip.set_device(self._device)
            self._threads.entered = True

    def own(self, acquire: Callable[[], Any], release: Callable[[Any], object]) -> Any:
        """What `acquire` returns, for which `release` is called at the end. Ctrl-C comes before or
        after, and not between."""
        return own(self._owned, acquire, release)

    def stream(self) -> Stream:
        """A new non-blocking stream."""
        stream = self.own(self._hip.create_stream, self._hip.destroy_stream)
        self.streams.append(stream)
        return stream

    def stack(self) -> ExitStack:
        """Add other resources; they are freed with the rest."""
        return self._owned

    def is_idle(self) -> bool:
        """Whether all streams are idle. A failed stream counts as idle."""
        return all(map(self._is_done, self.streams))

    def wait(self, streams: Iterable[Stream], timeout: float | None = None) -> bool:
        """Wait for streams; False if `timeout` seconds pass first. Raises their failures.

        It polls instead of blocking in the library, so that Ctrl-C and other threads run.
        """
        start, pause = time.monotonic(), 5e-5
        for stream in streams:
            while not self._hip.stream_is_done(stream):
                waited = time.monotonic() - start
                if timeout is not None and waited > timeout:
                    return False
                if waited > _SPIN:
                    if self.look is not None:
                        self.look()
                    time.sleep(pause)
                    pause = min(2 * pause, 1e-3)
        return True

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all streams are idle, also failed ones; False if that takes too long."""
        idle = True
        for stream in self.streams:
            try:
                idle = self.wait([stream], timeout) and idle
            except HipError:
                continue  # `wait` reports the failure
        return idle

    def close(self, patience: float | None = None) -> None:
        """Drain, then free. If streams are still busy after `patience` seconds, nothing on that
        device is freed while it hangs: freeing memory waits for the whole device. Interrupted
        while it drains, it can be called again. In a fork of the process nothing is freed."""
        if not self._process.here:
            return
        self.enter_thread()
        _abandoned[:] = [other for other in _abandoned if not other.is_idle()]
        if any(other._device == self._device for other in _abandoned):
            return
        if not self.drain(patience):
            _abandoned.append(self)
            return
        owned = self._owned.pop_all()
        self.streams.clear()
        try:
            uninterrupted(owned.close)
        finally:
            self.kept.clear()

    def _is_done(self, stream: Stream) -> bool:
        try:
            return self._hip.stream_is_done(stream)
        except HipError:
            return True
