"""Numba kernels over explicit SIMD values; every reduction in one fixed order (NUMERICS.md)."""

from numba.core import config

# Numba adds the host's features to a CPU that was named, so that "haswell" on an AVX-512 host would be no haswell:
# a named CPU without named features gets its own features only. Must stand before Numba makes its code generator.
if config.CPU_NAME is not None and config.CPU_FEATURES is None:
    config.CPU_FEATURES = ""
