"""SentencePiece vocabularies (`tokenizer.ggml.model` = "llama"): text to ids through the sentencepiece library.

The library does the merging: its model protobuf is built here from tokens, scores and types.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Scores, Types

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE_PIECES = [b"<0x%02X>" % value for value in range(256)]


class SentencePieces:
    """Plain text to ids. Immutable once made; safe to share between threads. Imports sentencepiece when made."""

    def __init__(self, pieces: list[bytes], scores: Scores, types: Types, unknown_id: int | None):
        """Raises ValueError for a vocabulary that the library does not take."""
        import sentencepiece

        sentencepiece.set_min_log_level(3)  # its warnings about a file's vocabulary would be written over the screen
        self._size = len(pieces)
        try:
            self._library = sentencepiece.SentencePieceProcessor(
                model_proto=build_model(pieces, scores, types, unknown_id)
            )
        except (RuntimeError, OSError) as error:
            raise ValueError(str(error)) from None

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, which must be valid UTF-8."""
        ids: list[int] = self._library.encode(text, out_type=int)
        if ids and max(ids) >= self._size:  # the unk that build_model added for a vocabulary without one
            return [token for token in ids if token < self._size]
        return ids


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def build_model(pieces: list[bytes], scores: Scores, types: Types, unknown_id: int | None) -> bytes:
    """A sentencepiece ModelProto (wire format) of kind BPE that merges exactly and normalizes nothing.

    Adds an `<unk>` behind the last piece where the vocabulary has none, since the library demands one.
    """
    pieces = list(pieces)
    kinds = types.astype(np.uint8)
    kinds[types == UNKNOWN] = CONTROL
    kinds[types == UNUSED] = NORMAL  # the library would take them apart again; llama.cpp does not
    # USER_DEFINED tokens are cut out before the library sees the text. It must not find them in what is left: that is
    # text in which they are not to be found. Those with a space mark of their own can only be found by merging.
    kinds[types == USER_DEFINED] = CONTROL
    for token in np.flatnonzero(types == USER_DEFINED).tolist():
        if _SPACE.encode() in pieces[token]:
            kinds[token] = NORMAL
    byte_ids = np.flatnonzero(types == BYTE).tolist()
    byte_fallback = sorted(pieces[token] for token in byte_ids) == _BYTE_PIECES
    if not byte_fallback:
        kinds[byte_ids] = CONTROL
    unknown = unknown_id if unknown_id is not None and types[unknown_id] != NORMAL else None
    if unknown is None or types[unknown] != UNKNOWN:
        unknown = int(np.argmax(types == UNKNOWN)) if (types == UNKNOWN).any() else unknown
    if unknown is None:
        unknown = len(pieces)
        pieces.append(b"<unk>")
        scores, kinds = np.append(scores, np.float32(0)), np.append(kinds, np.uint8(UNKNOWN))
    kinds[unknown] = UNKNOWN
    if len(set(pieces)) != len(pieces) or b"" in pieces or b"\0" in b"".join(pieces):
        _make_unique(pieces, kinds)

    # The tail of each piece's message, 7 bytes: field 2 (float score), field 3 (type).
    tails = np.empty((len(pieces), 7), np.uint8)
    tails[:, 0] = 0x15
    tails[:, 1:5] = scores.astype("<f4").view(np.uint8).reshape(-1, 4)
    tails[:, 5] = 0x18
    tails[:, 6] = kinds
    lengths = list(map(len, pieces))
    heads = {}
    for length in set(lengths):
        inner = b"\x0a" + _varint(length)
        heads[length] = b"\x0a" + _varint(len(inner) + length + 7) + inner
    out = [b""] * (3 * len(pieces))  # head, piece and tail in turn
    out[0::3] = map(heads.__getitem__, lengths)
    out[1::3] = pieces
    out[2::3] = tails.view("V7")[:, 0].tolist()
    # TrainerSpec: model_type 3 = BPE (2), byte_fallback 35, unk_id 40, bos_id 41, eos_id 42, pad_id 43 (none: -1).
    trainer = b"\x18\x02" + b"\x98\x02" + (b"\x01" if byte_fallback else b"\x00") + b"\xc0\x02" + _varint(unknown)
    trainer += b"".join(key + _varint((1 << 64) - 1) for key in (b"\xc8\x02", b"\xd0\x02", b"\xd8\x02"))
    # NormalizerSpec: name 1, add_dummy_prefix 3, remove_extra_whitespaces 4 (both off), escape_whitespaces 5.
    normalizer = b"\x0a\x08identity" + b"\x18\x00\x20\x00\x28\x01"
    out.append(b"\x12" + _varint(len(trainer)) + trainer + b"\x1a" + _varint(len(normalizer)) + normalizer)
    return b"".join(out)


def _make_unique(pieces: list[bytes], kinds: npt.NDArray[np.uint8]) -> None:
    """Rename empty and repeated pieces, and those with a NUL, to texts that occur nowhere: the library refuses them.

    Mutates both. A NUL in a text is found as the byte token then.
    """
    seen = set(pieces)
    first: set[bytes] = {b""}
    for index, piece in enumerate(pieces):
        if piece not in first and b"\0" not in piece:
            first.add(piece)
            continue
        name, number = b"", index
        while not name or name in seen:
            name = b"<repeated %d>" % number
            number += len(pieces)
        seen.add(name)
        pieces[index] = name
        kinds[index] = UNKNOWN if kinds[index] == UNKNOWN else CONTROL
