"""Numba kernels over explicit SIMD values; every reduction in one fixed order (NUMERICS.md)."""
