"""Where compiled kernels are kept.

Numba's cache notices changes in a function's own file only. The cache directory's name therefore carries a fingerprint
of all kernels' sources, of Numba, LLVM, NumPy and of the CPU that is compiled for.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from functools import cache
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """The app's cache directory: `FORKPOINT_CACHE_DIR`, else the platform's."""
    chosen = os.environ.get("FORKPOINT_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("forkpoint", appauthor=False))


def _source_digest() -> str:
    digest = hashlib.blake2b(digest_size=16)
    here = Path(__file__).parent
    for path in [
        *sorted((here / "kernels").glob("*.py")),
        here / "quants.py",
        here / "repack.py",
    ]:  # formats.py reads two
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _usable(path: Path) -> bool:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


@cache
def prepare() -> Path:
    """Import Numba and give its cache a directory of its own, once, before any kernel is imported.

    `NUMBA_CACHE_DIR` overrides the place. Where nothing can be written, a temporary directory serves this process.
    Gives the directory.
    """
    import llvmlite.binding as llvm
    import numba
    import numpy as np
    from numba.core.registry import cpu_target

    from engine.kernels.target import target

    t = target()
    facts = [_source_digest(), numba.__version__, str(llvm.llvm_version_info), np.__version__, sys.version]
    facts += [t.cpu, t.features, t.dot]
    name = "jit-" + hashlib.blake2b("\n".join(facts).encode(), digest_size=8).hexdigest()
    place = os.environ.get("NUMBA_CACHE_DIR")
    path = (Path(place) if place else cache_root() / "jit") / name
    if not _usable(path):
        path = Path(tempfile.mkdtemp(prefix="forkpoint-jit-"))
    # Numba imports most of itself at the first refresh of its registries: let that be part of the import.
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
    numba.config.CACHE_DIR = str(path)  # type: ignore[attr-defined]
    return path
