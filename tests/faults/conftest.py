"""What the faults share with each other: a place for their libraries."""

import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path):
    """In memory where there is such a place: a killed process loses nothing that the kernel has, on any file system."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="forkpoint-", dir=MEMORY) as place:
        yield Path(place)
