"""Names for what decides about a state: the tensors' digest, computed once a file, and keys over named fields."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.cache_files import cache_root, open_regular
from engine.gguf import GGUF

_PIECE = 1 << 24


_LARGEST = 1 << 16  # bytes of what is remembered of one file


def key_of(fields: Mapping[str, Any]) -> str:
    """blake2b-256 hex of the fields as canonical JSON."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def tensors_digest(gguf: GGUF, threads: int) -> str:
    """blake2b-256 hex over every tensor's name, type, shape and bytes, by name; nothing is remembered."""
    jobs = []
    for name in sorted(gguf.tensors):
        data = gguf.tensor_bytes(name)
        jobs += [data[i : i + _PIECE] for i in range(0, max(1, data.size), _PIECE)]
    with ThreadPoolExecutor(threads) as pool:
        pieces = list(pool.map(lambda piece: hashlib.blake2b(piece, digest_size=32).digest(), jobs))
    whole = hashlib.blake2b(digest_size=32)
    at = 0
    for name in sorted(gguf.tensors):
        info = gguf.tensors[name]
        whole.update(json.dumps([name, info.type, info.shape, info.nbytes]).encode())
        count = max(1, -(-info.nbytes // _PIECE))
        whole.update(b"".join(pieces[at : at + count]))
        at += count
    return whole.hexdigest()


def remembered_tensors_digest(gguf: GGUF, threads: int) -> str:
    """`tensors_digest`, remembered in the cache directory by the file's device, inode, size and times.

    A memory that cannot be read or written is no error: the digest is computed.
    """
    stat = os.stat(gguf.path)
    identity = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    place = cache_root() / "fingerprints" / (key_of({"file": identity})[:32] + ".json")
    try:
        with open_regular(place) as file:
            kept = json.loads(file.read(_LARGEST))
        if kept["file"] == identity and len(bytes.fromhex(kept["tensors"])) == 32:
            return str(kept["tensors"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = tensors_digest(gguf, threads)
    _remember(place, json.dumps({"file": identity, "tensors": digest}))
    return digest


def _remember(place: Path, text: str) -> None:
    temporary = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_text(text, "ascii")
        temporary.replace(place)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
