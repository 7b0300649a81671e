"""SentencePiece vocabularies (`tokenizer.ggml.model` = "llama") out of a GGUF's own fields.

The sentencepiece library does the merging: its model protobuf is built here from tokens, scores and types. Around it
stand the rules of llama.cpp, whose ids these vocabularies are used with: special tokens are cut out of the text first,
the longest first; a run of plain text at the start or behind one gets the space prefix; BOS as the file says.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

import numpy as np

from engine.errors import BadGGUF, UnsupportedTokenizer
from engine.gguf import GGUF, StringArray

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
_C_WHITESPACE = " \t\n\v\f\r"
_BYTE_PIECES = [b"<0x%02X>" % value for value in range(256)]

# Texts by which models end a turn, whatever the file's eos/eot/eom ids say. Only special tokens with such a text count.
END_OF_TURN_TEXTS = frozenset(
    {
        "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end_of_turn|>",
        "<|endoftext|>", "<|end_of_text|>", "<end_of_utterance>", "<EOT>", "[EOT]", "[EOS]", "<turn|>", "<|return|>",
    }
)  # fmt: skip


class Parse(Enum):
    """How far special tokens are looked for in a piece of text."""

    SPECIAL = "special"  # all of them: the text of a template
    PLAIN = "plain"  # only USER_DEFINED ones, which every vocabulary cuts out of any text
    CONTENT = "content"  # as PLAIN, but not those that steer a chat: what a person or a model wrote


class Tokenizer:
    """Text to ids and back. Immutable once made; safe to share between threads."""

    def __init__(
        self,
        pieces: list[bytes],
        types: np.ndarray[Any, np.dtype[np.int32]],
        processor: Any,
        settings: dict[str, Any],
        digest: str,
    ):
        self.vocabulary_size = len(pieces)
        self.bos_id: int | None = settings["bos_id"]
        self.eos_id: int | None = settings["eos_id"]
        self.unknown_id: int | None = settings["unknown_id"]
        self.add_bos: bool = settings["add_bos"] and self.bos_id is not None
        self.add_space_prefix: bool = settings["add_space_prefix"]
        self.digest = digest  # blake2b-256 hex of everything that decides ids and text
        self._pieces = pieces
        self._types = types
        self._processor = processor
        special = np.flatnonzero((types == CONTROL) | (types == USER_DEFINED) | (types == UNKNOWN)).tolist()
        # Longest text first, as llama.cpp cuts them; the id decides between equal lengths.
        special.sort(key=lambda token: (-len(pieces[token]), token))
        self._special = [(token, self.piece(token), int(types[token])) for token in special if pieces[token]]
        ends = {token for token in settings["end_ids"] if token is not None}
        ends |= {token for token, text, kind in self._special if text in END_OF_TURN_TEXTS and kind != UNKNOWN}
        self.end_ids: frozenset[int] = frozenset(ends)
        self._strips_right = frozenset(
            token for token, text, _ in self._special if text not in ("<unk>", "<s>", "<|endoftext|>")
        ) if settings["strips_right"] else frozenset()  # fmt: skip

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> Tokenizer:
        """Build the tokenizer of an open file. Imports sentencepiece.

        Raises UnsupportedTokenizer (a vocabulary of another kind), BadGGUF (fields that are missing or contradict).
        """
        kind = gguf.text("tokenizer.ggml.model")
        if kind != "llama":
            raise UnsupportedTokenizer(kind)
        pieces, scores, types = _vocabulary(gguf)
        settings = _settings(gguf, len(pieces))
        hashed = hashlib.blake2b(digest_size=32)
        hashed.update(json.dumps(settings, sort_keys=True).encode())
        hashed.update(np.fromiter(map(len, pieces), "<u4").tobytes() + b"".join(pieces))
        hashed.update(scores.tobytes() + types.tobytes())
        proto = build_model(pieces, scores, types, settings["unknown_id"])
        return cls(pieces, types, _load(gguf, proto), settings, hashed.hexdigest())

    def encode(
        self, text: str, *, add_bos: bool | None = None, parse_special: bool = False, continuation: bool = False
    ) -> list[int]:
        """The ids of `text`.

        `add_bos` None asks the model file. `continuation` appends in mid-text: no BOS unless asked for, no space
        prefix. Without `parse_special` a CONTROL token's text in `text` is text like any other.
        """
        return self.encode_parts(
            [(text, Parse.SPECIAL if parse_special else Parse.PLAIN)], add_bos=add_bos, continuation=continuation
        )

    def encode_parts(
        self,
        parts: Iterable[tuple[str, Parse]],
        *,
        add_bos: bool | None = None,
        continuation: bool = False,
        guarded: frozenset[str] = frozenset(),
    ) -> list[int]:
        """The ids of the parts' texts, joined. Special tokens are looked for in each part alone, as its `Parse` says.

        Plain text between special tokens is tokenized as one run, across the parts. `guarded` names texts that
        Parse.CONTENT leaves alone besides the end-of-turn tokens.
        """
        fragments: list[str | int] = []
        for text, parse in parts:
            for fragment in self._partition(_scalar_values(text), parse, guarded):
                if isinstance(fragment, str) and fragments and isinstance(fragments[-1], str):
                    fragments[-1] += fragment
                else:
                    fragments.append(fragment)
        ids: list[int] = []
        if add_bos is None:
            add_bos = self.add_bos and not continuation
        if add_bos and self.bos_id is not None:
            ids.append(self.bos_id)
        prefix = self.add_space_prefix and not continuation
        strip = False
        for fragment in fragments:
            if isinstance(fragment, int):
                ids.append(fragment)
                prefix, strip = self.add_space_prefix, fragment in self._strips_right
                continue
            if strip:
                fragment = fragment.lstrip(_C_WHITESPACE)
            if fragment:
                ids.extend(self._merge(" " + fragment if prefix else fragment))
                prefix, strip = False, False
        return ids

    def piece(self, token: int) -> str:
        """The token's text as the vocabulary lists it, for people to look at."""
        return self._pieces[self._checked(token)].decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes that the token puts into plain text: b"" for CONTROL and UNKNOWN tokens."""
        kind = self._types[self._checked(token)]
        piece = self._pieces[token]
        if kind in (CONTROL, UNKNOWN):
            return b""
        if kind == BYTE:
            return bytes((int(piece[3:5], 16),))
        return piece.replace(b"\xe2\x96\x81", b" ")

    def is_special(self, token: int) -> bool:
        """Whether the token stands for no plain text (CONTROL or UNKNOWN)."""
        return bool(self._types[self._checked(token)] in (CONTROL, UNKNOWN))

    def token_type(self, token: int) -> int:
        """NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED or BYTE."""
        return int(self._types[self._checked(token)])

    @property
    def special_texts(self) -> tuple[str, ...]:
        """The texts of all special tokens (CONTROL, USER_DEFINED, UNKNOWN), the longest first."""
        return tuple(text for _, text, _ in self._special)

    def is_end_of_turn(self, token: int) -> bool:
        """Whether the model ends its turn, or its text, by this token."""
        return token in self.end_ids

    def decode(self, ids: Sequence[int], skip_special: bool = True, *, continuation: bool = False) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD.

        Undoes `encode`: one space is dropped at the start (not with `continuation`) and behind special tokens, where
        encode put it. Special tokens vanish, or with `skip_special` False show their text.
        """
        out = []
        drop = self.add_space_prefix and not continuation
        for token in ids:
            if self.is_special(token):
                drop = self.add_space_prefix
                if not skip_special:
                    out.append(self._pieces[token])
                continue
            raw = self.token_bytes(token)
            out.append(raw[1:] if drop and raw.startswith(b" ") else raw)
            drop = self._types[token] == USER_DEFINED and self.add_space_prefix
        return b"".join(out).decode("utf-8", "replace")

    def _checked(self, token: int) -> int:
        if not 0 <= token < self.vocabulary_size:
            raise IndexError(f"token {token} is not in a vocabulary of {self.vocabulary_size}")
        return token

    def _partition(self, text: str, parse: Parse, guarded: frozenset[str]) -> list[str | int]:
        """Cut special tokens out of `text`, the longest first, wherever they stand."""
        fragments: list[str | int] = [text] if text else []
        for token, special, kind in self._special:
            if parse is not Parse.SPECIAL and kind != USER_DEFINED:
                continue
            if special not in text or (parse is Parse.CONTENT and (token in self.end_ids or special in guarded)):
                continue
            cut: list[str | int] = []
            for fragment in fragments:
                if isinstance(fragment, int):
                    cut.append(fragment)
                    continue
                for index, run in enumerate(fragment.split(special)):
                    cut += ([token] if index else []) + ([run] if run else [])
            fragments = cut
        return fragments

    def _merge(self, text: str) -> list[int]:
        ids: list[int] = self._processor.encode(text, out_type=int)
        if ids and max(ids) >= self.vocabulary_size:  # the unk that build_model added for a vocabulary without one
            ids = [token for token in ids if token < self.vocabulary_size]
        return ids


def _scalar_values(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates as U+FFFD: what UTF-8 can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _vocabulary(gguf: GGUF) -> tuple[list[bytes], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pieces, scores float32 (n,), types int32 (n,)."""
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, StringArray) or not len(tokens):
        raise BadGGUF(gguf.path, "tokenizer.ggml.tokens", "is missing or not a list of strings")
    count = len(tokens)
    scores = _numbers(gguf, "tokenizer.ggml.scores", count, np.zeros(count, np.float32)).astype("<f4")
    types = _numbers(gguf, "tokenizer.ggml.token_type", count, np.full(count, NORMAL, np.int32)).astype("<i4")
    types[(types < NORMAL) | (types > BYTE)] = NORMAL
    pieces = tokens.raw()
    for token in np.flatnonzero(types == BYTE).tolist():
        if re.fullmatch(rb"<0x[0-9A-Fa-f]{2}>", pieces[token]) is None:
            types[token] = CONTROL
    return pieces, np.nan_to_num(scores, nan=-1e30, posinf=1e30, neginf=-1e30), types


def _numbers(gguf: GGUF, key: str, count: int, default: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    values = gguf.metadata.get(key, default)
    if not isinstance(values, np.ndarray) or values.shape != (count,):
        raise BadGGUF(gguf.path, key, f"is not a list of {count} numbers, one for each token")
    return values


def _settings(gguf: GGUF, count: int) -> dict[str, Any]:
    def token(name: str, default: int | None) -> int | None:
        value = gguf.metadata.get(f"tokenizer.ggml.{name}_token_id", default)
        # Some files write -1 for "none", as an unsigned number: whatever is outside the vocabulary means none.
        return value if isinstance(value, int) and 0 <= value < count else None

    eos = token("eos", 2)
    return {
        "model": "llama",
        "bos_id": token("bos", 1),
        "eos_id": eos,
        "unknown_id": token("unknown", 0),
        "end_ids": [eos, token("eot", None), token("eom", None)],
        "add_bos": gguf.flag("tokenizer.ggml.add_bos_token", True),
        "add_eos": gguf.flag("tokenizer.ggml.add_eos_token", False),
        "add_space_prefix": gguf.flag("tokenizer.ggml.add_space_prefix", True),
        # llama.cpp knows by the model's name that Phi-3's special tokens swallow the white space behind them.
        "strips_right": any(name in str(gguf.metadata.get("general.name", "")).lower() for name in ("phi-3", "phi3")),
    }


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def build_model(
    pieces: list[bytes], scores: np.ndarray[Any, Any], types: np.ndarray[Any, Any], unknown_id: int | None
) -> bytes:
    """A sentencepiece ModelProto (wire format) of kind BPE that merges exactly and normalizes nothing.

    Adds an `<unk>` behind the last piece where the vocabulary has none, since the library demands one.
    """
    pieces = list(pieces)
    kinds = types.astype(np.uint8)
    kinds[types == UNKNOWN] = CONTROL
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


def _make_unique(pieces: list[bytes], kinds: np.ndarray[Any, Any]) -> None:
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


def _load(gguf: GGUF, proto: bytes) -> Any:
    import sentencepiece

    sentencepiece.set_min_log_level(3)  # its warnings about a file's vocabulary would be written over the screen
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=proto)
    except (RuntimeError, ValueError, OSError):
        raise BadGGUF(gguf.path, "tokenizer.ggml.tokens", "the vocabulary is unusable") from None
