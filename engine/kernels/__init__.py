"""Numba kernels over explicit SIMD values; every reduction in one fixed order (NUMERICS.md).

`plan`, `entry` and `target` import no Numba: a start with kernels that are compiled already needs no more.
"""
