"""What idle workers send: threads that functions have left behind keep logging when no one waits for a result.

One thread for all of them waits for their wires. (Their watching threads wait for the ends of their processes, and no
event loop is there for certain: workers outlive the loops that use them.)
"""

from __future__ import annotations

import selectors
import threading
from contextlib import suppress

from rh_agents.executors._workers.worker import Worker


class IdleReader:
    """Reads what idle workers send. The thread is started with the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._selector: selectors.DefaultSelector | None = None
        self._descriptors: dict[Worker, int] = {}

    def watch(self, worker: Worker) -> None:
        """The worker is idle from now on."""
        with self._lock:
            if self._selector is None:
                self._selector = selectors.DefaultSelector()
                reader = threading.Thread(
                    target=self._run, args=(self._selector,), name="rh_agents idle workers", daemon=True
                )
                reader.start()
            descriptor = worker.fileno()
            if descriptor >= 0:  # else it has been let go meanwhile
                self._descriptors[worker] = descriptor
                self._selector.register(descriptor, selectors.EVENT_READ, worker)

    def leave(self, worker: Worker) -> None:
        """It is not, or its wire is about to be closed."""
        with self._lock:
            descriptor = self._descriptors.pop(worker, None)
            if descriptor is not None and self._selector is not None:
                with suppress(KeyError, ValueError, OSError):
                    self._selector.unregister(descriptor)

    def forget_after_fork(self) -> None:
        """In a forked child: the thread is not there, and the selector is shared with the parent's."""
        self._lock = threading.Lock()
        selector, self._selector = self._selector, None
        self._descriptors.clear()
        if selector is not None:
            selector.close()

    def _run(self, selector: selectors.DefaultSelector) -> None:
        while True:
            for key, _ in selector.select():
                worker: Worker = key.data
                if not worker.read_while_idle():
                    self.leave(worker)
