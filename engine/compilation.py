"""Compilation ahead of use: everything that a model's first token needs, with progress, on two cores where there are.

Numba and LLVM compile one thing at a time in a process. So a second process, started with the first part that is
missing, compiles its share into the same place; whatever it does not bring is compiled here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine import jit
from engine.kernels import entry
from engine.pool import physical_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

_HELPER = "import sys; sys.path.insert(0, sys.argv[1]); from engine.compilation import help_out; help_out(sys.argv[2:])"
_PATIENCE_S = 0.2
_OWN = ("forward", "rope", "sampling")  # about as long to compile as attention and the products of a few tensor types


def compile_for(kinds: frozenset[str], kv_type: str, progress: Callable[[int, int], None] | None = None) -> None:
    """Load the kernels for these tensor types and this KV type, and compile those that never were.

    `progress(done, total)` is called before each part that has to be compiled, and at the end.
    """
    cold = [part for part in entry.parts(kinds, kv_type) if not entry.load(part)]
    if not cold:
        return
    done = 0

    def count(finished: int) -> None:
        nonlocal done
        while progress is not None and done < finished:
            done += 1
            progress(done, len(cold))

    if progress is not None:
        progress(0, len(cold))
    shared = [part for part in cold if part not in _OWN]
    with _helper(shared if len(shared) < len(cold) else []) as helper:
        for part in cold:
            if part not in shared:
                entry.compile_part(part)
                count(sum(map(entry.load, cold)))
        while helper is not None and not all(map(entry.load, shared)):
            try:
                helper.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                count(sum(map(entry.load, cold)))
                continue
            break
    for part in shared:
        if not entry.load(part):
            entry.compile_part(part)
        count(sum(map(entry.load, cold)))


@contextmanager
def _helper(parts: Sequence[str]) -> Iterator[subprocess.Popen[bytes] | None]:
    """A process that compiles `parts` meanwhile; None where there is no point or no way to have one."""
    helper = None
    if parts and jit.place() is not None and physical_cores() > 1 and sys.executable and not hasattr(sys, "frozen"):
        command = [sys.executable, "-c", _HELPER, str(Path(__file__).resolve().parents[1]), *parts]
        nothing = subprocess.DEVNULL
        try:
            helper = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)  # noqa: S603 - our own code
        except OSError:
            helper = None
    try:
        yield helper
    finally:
        if helper is not None:
            helper.kill()
            helper.wait()


def help_out(parts: Sequence[str]) -> None:
    """Compile parts for another process: they are kept where it finds them."""
    for part in parts:
        if not entry.load(part):
            entry.compile_part(part)
