"""The threads of the engine: started once, asleep between steps, each running one nogil function a step."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

Job = Callable[[int], Any]
THREAD_NAME = "engine-"
"""How the names of the threads begin."""


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads counted once, within the control group's quota; at least 1."""
    quota = cpu_quota()
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:
        cores = os.cpu_count() or 1
    else:
        siblings = set()
        for cpu in allowed:
            topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
            try:
                siblings.add(topology.read_text())
            except OSError:
                siblings.add(str(cpu))
        cores = len(siblings)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def cpu_quota(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Processors that the control group may keep busy, its ancestors' limits included; None where nothing limits it.

    Reads cpu.max (version 2) and cpu.cfs_quota_us (version 1). In a container the group's own folder often is the root.
    """
    quotas = []
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        folder = base / group.strip("/")
        for place in (folder, *folder.parents):
            quotas += _quota_of(place)
            if place == base:
                break
    return min(quotas, default=None)


def _quota_of(group: Path) -> list[float]:
    """The quota that one group sets, if any."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()[:2]
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError, ZeroDivisionError):
        return []  # "max", or no such file


class ThreadPool:
    """`size` threads, of which the caller is one. A job must not raise: the others would wait for ever."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._seats = [-1] * size  # the processor on which each thread began the step
        self._queues: list[SimpleQueue[Job | None]] = [SimpleQueue() for _ in range(size - 1)]
        for i, queue in enumerate(self._queues):
            threading.Thread(target=self._serve, args=(i + 1, queue), name=f"{THREAD_NAME}{i + 1}", daemon=True).start()

    def _serve(self, me: int, queue: SimpleQueue[Job | None]) -> None:
        while (job := queue.get()) is not None:
            self._take_seat(me)
            job(me)
            del job

    def _take_seat(self, me: int) -> None:
        """Leave a processor on which another of our threads begins this step, if one is free.

        The scheduler does not always: two threads that meet at barriers every few microseconds look idle to it, and
        stay together (a token of a small model took twenty times as long). It is not told where to keep us.
        """
        here = _processor()
        self._seats[me] = here
        if here >= 0 and here in self._seats[:me]:
            allowed = os.sched_getaffinity(0)
            free = allowed - set(self._seats)
            if free:
                os.sched_setaffinity(0, free)
                os.sched_setaffinity(0, allowed)
                self._seats[me] = _processor()

    def run(self, job: Job) -> None:
        """Call job(0) here and job(1) … job(size - 1) in the threads. The job itself ends with a barrier for all."""
        if self._queues:
            self._seats[0] = _processor()
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


def _find_processor() -> Callable[[], int]:
    """A function that says which processor the calling thread is on; -1 where that cannot be asked."""
    if sys.platform == "linux":
        try:
            return ctypes.PyDLL(None).sched_getcpu
        except (OSError, AttributeError):
            pass
    return lambda: -1


_processor = _find_processor()
