"""The threads of the engine: started once, asleep between steps, each running one nogil function a step."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

Job = Callable[[int], Any]


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads counted once; at least 1."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:
        return max(1, os.cpu_count() or 1)
    siblings = set()
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings.add(topology.read_text())
        except OSError:
            siblings.add(str(cpu))
    return max(1, len(siblings))


class ThreadPool:
    """`size` threads, of which the caller is one. A job must not raise: the others would wait for ever."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._queues: list[SimpleQueue[Job | None]] = [SimpleQueue() for _ in range(size - 1)]
        for i, queue in enumerate(self._queues):
            threading.Thread(target=self._serve, args=(i + 1, queue), name=f"engine-{i + 1}", daemon=True).start()

    @staticmethod
    def _serve(me: int, queue: SimpleQueue[Job | None]) -> None:
        while (job := queue.get()) is not None:
            job(me)
            del job

    def run(self, job: Job) -> None:
        """Call job(0) here and job(1) … job(size - 1) in the threads. The job itself ends with a barrier for all."""
        waiting = iter(self._queues)
        try:
            for queue in waiting:
                queue.put(job)
        finally:
            # Ctrl+C may strike here in the main thread: whoever has begun must not be left alone at a barrier.
            for queue in waiting:
                queue.put(job)
            job(0)

    def close(self) -> None:
        """Let the threads end."""
        for queue in self._queues:
            queue.put(None)
        self._queues = []
