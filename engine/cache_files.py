"""The app's cache directory, and which of its files may be believed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import platformdirs


def cache_root() -> Path:
    """The app's cache directory: `FORKPOINT_CACHE_DIR`, else the platform's."""
    chosen = os.environ.get("FORKPOINT_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("forkpoint", appauthor=False))


def only_ours(found: os.stat_result) -> bool:
    """Whether nobody but this user and the system's can have written the file."""
    if not hasattr(os, "geteuid"):
        return True
    return found.st_uid in (os.geteuid(), 0) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
