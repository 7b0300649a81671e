"""What a compiled function of the kernels is called and takes. Imports nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """A function of a module of this package, and its type: one letter an argument and for the result, i int64,
    d float64; no result is none. Where `of` is not empty, it is what the function gives for that.
    """

    module: str
    function: str
    arguments: str
    result: str = ""
    of: str = ""

    @property
    def symbol(self) -> str:
        """The C function's name in the object file."""
        return f"forkpoint_{self.function}{self.of and '_' + self.of}"
