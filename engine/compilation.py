"""Compilation ahead of use: everything that a model's first token needs, with progress."""

from __future__ import annotations

from collections.abc import Callable

from engine.kernels import entry


def compile_for(kinds: frozenset[str], kv_type: str, progress: Callable[[int, int], None] | None = None) -> None:
    """Load the kernels for these tensor types and this KV type, and compile those that never were.

    `progress(done, total)` is called before each part that has to be compiled, and at the end.
    """
    cold = [part for part in entry.parts(kinds, kv_type) if not entry.load(part)]
    for done, part in enumerate(cold):
        if progress is not None:
            progress(done, len(cold))
        entry.compile_part(part)
    if progress is not None and cold:
        progress(len(cold), len(cold))
