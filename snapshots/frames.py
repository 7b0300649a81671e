"""zstandard frames: bounded both ways."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LEVEL = 1
SMALL, GROWTH = 1 << 20, 64
"""A frame may open to `SMALL` bytes, or to `GROWTH` times its own size: no state is emptier, but a bomb is."""

_local = threading.local()


class CannotDecode(Exception):  # noqa: N818 - the name says what is the case
    """Bytes that no encoder made; `args[0]` says what is wrong, as the end of a sentence about the file."""


def is_sound(frame_size: int, size: int) -> bool:
    """Whether a frame may open to so much; what it does not allow is kept unpacked."""
    return size <= max(SMALL, GROWTH * frame_size)


def compress(data: np.ndarray | bytes) -> bytes:
    """One frame that says how large its content is."""
    return compressor()(data)


def compressor() -> Callable[[Any], bytes]:
    """`compress` for many calls of this thread."""
    try:
        made: Callable[[Any], bytes] = _local.compress
    except AttributeError:
        import zstandard

        # Shorter matches are chance in such data; looking for those of five bytes takes a third more time.
        how = zstandard.ZstdCompressionParameters.from_level(LEVEL, min_match=7, hash_log=12, write_content_size=1)
        made = _local.compress = zstandard.ZstdCompressor(compression_params=how).compress
    return made


def decompress(frame: memoryview, size: int) -> bytes:
    """One shot, of exactly one frame that itself claims exactly `size` bytes and no larger window than it needs.

    Raises CannotDecode.
    """
    if not is_sound(len(frame), size):
        raise CannotDecode("opens to far more than it is")
    try:
        opened, claims_of, error_type = _local.decoder
    except AttributeError:
        import zstandard

        opened, claims_of, error_type = _local.decoder = (
            zstandard.ZstdDecompressor().decompress, zstandard.get_frame_parameters, zstandard.ZstdError
        )  # fmt: skip
    try:
        claims = claims_of(frame)
        if claims.content_size != size or claims.window_size > max(size, 1 << 20) or claims.dict_id:
            raise CannotDecode("has a frame of another size")
        plain: bytes = opened(frame, max_output_size=size, allow_extra_data=False)
    except error_type as error:
        raise CannotDecode("cannot be decompressed") from error
    if len(plain) != size:
        raise CannotDecode("has a frame of another size")
    return plain
