"""The app's cache directory, and which of its files may be believed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

import platformdirs


def cache_root() -> Path:
    """The app's cache directory: `FORKPOINT_CACHE_DIR`, else the platform's."""
    chosen = os.environ.get("FORKPOINT_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("forkpoint", appauthor=False))


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file of the cache directory for reading.

    Raises OSError, also for a link, and for a pipe, which would be waited for.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(fd, "rb")


def only_ours(found: os.stat_result) -> bool:
    """Whether nobody but this user and the system's can have written the file."""
    if not hasattr(os, "geteuid"):
        return True
    return found.st_uid in (os.geteuid(), 0) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
