"""Where compiled kernels are kept, and under which name. Imports no Numba.

The directory's name carries a fingerprint of everything that decides about the machine code: all kernels' sources,
Python, Numba, LLVM and the CPU that is compiled for. A change of any of them finds an empty directory.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from engine.cache_files import cache_root
from engine.kernels.target import processor


@cache
def fingerprint() -> str:
    """blake2b-128 hex of what decides about the machine code."""
    digest = hashlib.blake2b(digest_size=16)
    here = Path(__file__).parent
    layouts = [here / "quants.py", here / "repack.py"]  # which kernels/formats.py is made from
    for path in [*sorted((here / "kernels").glob("*.py")), *layouts]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    facts = [_numba_version(), llvmlite.__version__, str(llvm.llvm_version_info), sys.version, *processor()]
    digest.update("\0".join(facts).encode())
    return digest.hexdigest()


@cache
def place() -> Path | None:
    """The directory for this process's kernels, made where it is missing; None where nothing can be written.

    `NUMBA_CACHE_DIR` overrides the place.
    """
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    path = (Path(chosen) if chosen else cache_root() / "jit") / ("jit-" + fingerprint()[:16])
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError:
        return None


def _numba_version() -> str:
    """What Numba's package says of its version, without the second that importing it takes."""
    spec = find_spec("numba")
    if spec is None or spec.origin is None:
        return ""
    try:
        return Path(spec.origin).with_name("_version.py").read_text("utf-8")
    except OSError:
        return ""
