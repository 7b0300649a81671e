"""Text to ids and back, by the vocabulary of a GGUF.

`sentence_pieces` and `byte_pairs` do the merging. Around them stand the rules of llama.cpp, whose ids vocabularies
are used with: special tokens are cut out of the text first, the longest first; in a SentencePiece vocabulary a run of
plain text at the start or behind one gets the space prefix; BOS and EOS as the file says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

import numpy as np

from engine.byte_pairs import BytePairs, bytes_of
from engine.errors import BadGGUF
from engine.gguf import GGUF
from engine.vocabulary import BYTE, BYTE_PAIR, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Vocabulary

__all__ = ["BYTE", "CONTROL", "NORMAL", "UNKNOWN", "UNUSED", "USER_DEFINED", "Parse", "Tokenizer"]

_THINKING_MARKS = frozenset({"<think>", "</think>", "[THINK]", "[/THINK]"})
_C_WHITESPACE = " \t\n\v\f\r"


class Parse(Enum):
    """How far special tokens are looked for in a piece of text."""

    SPECIAL = "special"  # all of them: the text of a template
    PLAIN = "plain"  # only USER_DEFINED ones, which every vocabulary cuts out of any text
    CONTENT = "content"  # as PLAIN, but not those that steer a chat: what a person or a model wrote


class Tokenizer:
    """Text to ids and back. Immutable once made; safe to share between threads."""

    def __init__(self, vocabulary: Vocabulary, merge: Callable[[str], list[int]], digest: str, padding: int = 0):
        """`merge` turns plain text into ids. `padding` ids behind the vocabulary's stand for no text."""
        pieces = [*vocabulary.pieces, *[b""] * padding]
        types = np.concatenate([vocabulary.types, np.full(padding, UNUSED, vocabulary.types.dtype)])
        self.vocabulary_size = len(pieces)
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.unknown_id = vocabulary.unknown_id
        self.end_ids = vocabulary.end_ids  # every token that ends a turn or a text
        self.add_bos = vocabulary.add_bos and vocabulary.bos_id is not None
        self.add_eos = vocabulary.add_eos and vocabulary.eos_id is not None
        self.add_space_prefix = vocabulary.add_space_prefix
        self.digest = digest  # blake2b-256 hex of everything that decides ids and text
        self._pieces = pieces
        self._types = types
        self._byte_pair = vocabulary.model == BYTE_PAIR
        self._merge = merge
        self._strips_right, self._strips_left = vocabulary.strips_right, vocabulary.strips_left
        special = np.flatnonzero((types == CONTROL) | (types == USER_DEFINED) | (types == UNKNOWN)).tolist()
        # Longest text first, as llama.cpp cuts them; the id decides between equal lengths.
        special.sort(key=lambda token: (-len(pieces[token]), token))
        self._special = [(token, self.piece(token)) for token in special if pieces[token]]
        # Marks of a thinking section are part of what a reply says, whatever type the file gives them.
        self._shown = frozenset(token for token, text in self._special if text in _THINKING_MARKS)
        self._user_defined = [(token, text) for token, text in self._special if types[token] == USER_DEFINED]

    @classmethod
    def from_gguf(cls, gguf: GGUF, rows: int = 0) -> Tokenizer:
        """Build the tokenizer of an open file. Imports sentencepiece or tokenizers.

        rows: of the embedding, which some files have more of than tokens.

        Raises UnsupportedTokenizer (a vocabulary or pre-tokenizer of another kind), BadGGUF (fields that are missing or
        contradict).
        """
        vocabulary = Vocabulary.from_gguf(gguf)
        hashed = hashlib.blake2b(digest_size=32)
        hashed.update(json.dumps(vocabulary.fields(), sort_keys=True).encode())
        hashed.update(np.fromiter(map(len, vocabulary.pieces), "<u4").tobytes() + b"".join(vocabulary.pieces))
        hashed.update(vocabulary.scores.tobytes() + vocabulary.types.tobytes())
        if vocabulary.merges is not None:
            hashed.update(vocabulary.merges.region())
        padding = max(0, rows - len(vocabulary.pieces))
        return cls(vocabulary, _merger(gguf, vocabulary), hashed.hexdigest(), padding)

    def encode(
        self,
        text: str,
        *,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
        parse_special: bool = False,
        continuation: bool = False,
    ) -> list[int]:
        """The ids of `text`.

        `add_bos` and `add_eos` None ask the model file. `continuation` appends in mid-text: no BOS and EOS unless asked
        for, no space prefix. Without `parse_special` a CONTROL token's text in `text` is text like any other.
        """
        parts = [(text, Parse.SPECIAL if parse_special else Parse.PLAIN)]
        ids = self.encode_parts(parts, add_bos=add_bos, continuation=continuation)
        if add_eos is None:
            add_eos = self.add_eos and add_bos is None and not continuation
        if add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

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
        for at, fragment in enumerate(fragments):
            if isinstance(fragment, int):
                ids.append(fragment)
                prefix, strip = self.add_space_prefix, fragment in self._strips_right
                continue
            if strip:
                fragment = fragment.lstrip(_C_WHITESPACE)
            if at + 1 < len(fragments) and fragments[at + 1] in self._strips_left:
                fragment = fragment.rstrip(_C_WHITESPACE)
            if fragment:
                ids.extend(self._merge(" " + fragment if prefix else fragment))
                prefix, strip = False, False
        return ids

    def piece(self, token: int) -> str:
        """The token's text as the vocabulary lists it, for people to look at."""
        return self._pieces[self._checked(token)].decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes that the token puts into text: b"" for CONTROL and UNKNOWN tokens, but for marks of thinking."""
        kind = self._types[self._checked(token)]
        piece = self._pieces[token]
        if kind in (CONTROL, UNKNOWN):
            return piece if token in self._shown else b""
        if kind == BYTE:
            return bytes((int(piece[3:5], 16),))
        if self._byte_pair:
            return piece if kind == USER_DEFINED else bytes_of(piece)
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
        return tuple(text for _, text in self._special)

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
                if not skip_special or token in self._shown:
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
        for token, special in self._special if parse is Parse.SPECIAL else self._user_defined:
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


def _scalar_values(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates as U+FFFD: what UTF-8 can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _merger(gguf: GGUF, vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """Text to ids by the library for this kind of vocabulary."""
    if vocabulary.pre is not None and vocabulary.merges is not None:
        return BytePairs(vocabulary.pieces, vocabulary.merges.raw(), vocabulary.pre).encode
    from engine.sentence_pieces import SentencePieces

    try:
        library = SentencePieces(vocabulary.pieces, vocabulary.scores, vocabulary.types, vocabulary.unknown_id)
    except ValueError:
        raise BadGGUF(gguf.path, "tokenizer.ggml.tokens", "the vocabulary is unusable") from None
    return library.encode
