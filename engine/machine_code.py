"""Compiled parts on disk and in memory. Imports no Numba.

A file is a magic line, a digest and one object file. The digest covers the object, the part's name and the fingerprint
that it was compiled under; a file that does not fit, or that another user could have written, is as good as none: what
it holds is never run. A file is written whole beside its place and then renamed, so that two processes may compile the
same part at once.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from engine.cache_files import only_ours, open_regular
from engine.kernels.target import target_machine

_MAGIC = b"forkpoint machine code 1\n"
_DIGEST_BYTES = 32
_LARGEST = 1 << 24
_C_TYPES: dict[str, Any] = {"i": ctypes.c_int64, "d": ctypes.c_double, "": None}


def read(path: Path, key: str) -> bytes | None:
    """The object file kept at `path` under `key`, or None where there is none that can be trusted."""
    try:
        with open_regular(path) as file:
            if not only_ours(os.fstat(file.fileno())):
                return None
            data = file.read(_LARGEST)
    except OSError:
        return None
    code = data[len(_MAGIC) + _DIGEST_BYTES :]
    return code if data == _frame(code, key) else None


def write(path: Path, key: str, code: bytes) -> None:
    """Keep an object file. What cannot be written is not kept."""
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")  # mode 0600
        with os.fdopen(descriptor, "wb") as file:
            file.write(_frame(code, key))
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def _frame(code: bytes, key: str) -> bytes:
    name = hashlib.blake2b(key.encode(), digest_size=_DIGEST_BYTES).digest()
    return _MAGIC + hashlib.blake2b(code, digest_size=_DIGEST_BYTES, key=name).digest() + code


class MachineCode:
    """An object file made runnable in this process, for the life of the process. Raises RuntimeError for a bad one."""

    def __init__(self, code: bytes) -> None:
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        _kept.append(self)

    def address(self, symbol: str) -> int:
        """Where a function begins. Raises RuntimeError where the object has none of this name."""
        found = int(self._engine.get_function_address(symbol))
        if not found:
            raise RuntimeError(f"no {symbol} in the compiled code")
        return found

    def function(self, symbol: str, arguments: str, result: str = "") -> Callable[..., int]:
        """The function as a callable that lets go of the GIL. One letter an argument: i int64, d float64."""
        made: Callable[..., int] = ctypes.CFUNCTYPE(*(_C_TYPES[letter] for letter in (result, *arguments)))(
            self.address(symbol)
        )
        return made


_kept: list[MachineCode] = []  # an address must not outlive its code, and threads may run it to the very end
