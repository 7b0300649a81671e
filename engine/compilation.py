"""Compilation ahead of use: everything that a model's first token needs, with progress."""

from __future__ import annotations

from collections.abc import Callable

from engine import sampler
from engine.jit import prepare

prepare()

from engine.kernels import entry  # noqa: E402  kernels are imported once the JIT cache has its place


def compile_for(kinds: frozenset[str], kv_type: str, progress: Callable[[int, int], None] | None = None) -> None:
    """Compile, or load from the cache, the forward pass for these tensor types and this KV type.

    `progress(done, total)` is called before each part where something has to be compiled, and at the end.
    """
    place = prepare()
    needed = [*entry.parts(kinds, kv_type), ("sampler", sampler.warm_up)]
    known = {path.stem for path in place.glob("*.done")}
    cold = sum(name not in known for name, _ in needed)
    done = 0
    for name, compile_part in needed:
        if name not in known and progress is not None:
            progress(done, cold)
        compile_part()
        if name not in known:
            done += 1
            (place / f"{name}.done").touch()
    if progress is not None and cold:
        progress(cold, cold)
