"""Slow, plain, independent counterparts of the engine's parts: the oracles of the tests. No import from `engine`."""
