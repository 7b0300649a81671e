"""How Numba compiles the kernels. Every module that defines one takes its OPTIONS from here.

Kernels never raise and never allocate (`_nrt` off: what would need memory does not compile). Numba's own cache is off:
whole parts are kept as machine code instead (engine/machine_code.py).
"""

from __future__ import annotations

from typing import Any

from numba.core import config

from engine.kernels.target import processor

# Must stand before Numba makes its code generator: the CPU that is compiled for is the one that `target` speaks of.
config.CPU_NAME, config.CPU_FEATURES = processor()

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False, "_nrt": False}
