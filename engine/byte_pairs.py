"""Byte-pair vocabularies (`tokenizer.ggml.model` = "gpt2"): text to ids through the tokenizers library.

Such a vocabulary writes bytes as visible characters, and merges the characters of a word by a list of pairs, the
earliest first. The library wants every piece that a merge reads or makes to be a token. llama.cpp, whose ids these
vocabularies are used with, does not: what comes out and is no token is spelled by the tokens of its bytes, and where
there are none, it vanishes. So missing pieces get ids behind the vocabulary's end, which are spelled afterwards.
"""

from __future__ import annotations

from itertools import chain, repeat, starmap
from operator import add, contains
from typing import Any

from engine.pretokenizers import PreTokenizer

# Byte -> the visible character that stands for it: printable Latin-1 for itself, the others from U+0100 on.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
ALPHABET = {byte: chr(byte) for byte in _PRINTABLE}
ALPHABET |= {byte: chr(0x100 + at) for at, byte in enumerate(b for b in range(256) if b not in ALPHABET)}
_ORDER = "".join(ALPHABET[byte] for byte in range(256))

# A piece's characters to the bytes that they stand for, as Latin-1. What stands for no byte is led out of Latin-1.
_TO_BYTES = {ord(character): chr(byte) for byte, character in ALPHABET.items()}
_TO_BYTES |= {point: "\uffff" for point in range(0x80, 0x100) if chr(point) not in _ORDER}


def bytes_of(piece: bytes) -> bytes:
    """The bytes that a token's text stands for; a text with other characters stands for itself."""
    try:
        return piece.decode().translate(_TO_BYTES).encode("latin-1")
    except UnicodeError:
        return piece


class BytePairs:
    """Plain text to ids. Immutable once made; safe to share between threads. Imports tokenizers when made."""

    def __init__(self, pieces: list[bytes], merges: list[bytes], pre: PreTokenizer):
        """`merges` hold two pieces with a space between; those that can apply to no text are left out."""
        self._size = len(pieces)
        # Of several tokens with one text the last counts, as in llama.cpp's map. What is not UTF-8 is no text at all.
        vocabulary = {text: token for token, text in enumerate(_texts(pieces)) if text is not None}
        self._letters = {letter: vocabulary[letter] for letter in map(chr, range(128)) if letter in vocabulary}
        self._spelled: dict[int, list[int]] = {}
        for character in _ORDER:
            self._add_missing(character, vocabulary)
        self._whole_words: dict[str, int] | None = None
        self._library = self._made(vocabulary, _pairs(merges), pre)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, which must be valid UTF-8."""
        if self._whole_words is None:
            ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        else:
            ids = [
                token for word, _ in self._library.pre_tokenizer.pre_tokenize_str(text) for token in self._word(word)
            ]
        if self._spelled and ids and max(ids) >= self._size:
            return [own for token in ids for own in self._spelled.get(token, (token,))]
        return ids

    def _word(self, word: str) -> list[int]:
        assert self._whole_words is not None
        token = self._whole_words.get(word)
        return [token] if token is not None else [piece.id for piece in self._library.model.tokenize(word)]

    def _made(self, vocabulary: dict[str, int], pairs: list[tuple[str, str]], pre: PreTokenizer) -> Any:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers

        whole_words = pre.whole_words
        if not all(map(vocabulary.__contains__, chain(starmap(add, pairs), chain.from_iterable(pairs)))):
            if whole_words:  # the library would take the missing pieces for words
                self._whole_words, whole_words = dict(vocabulary), False
            pairs = [pair for pair in pairs if not any(part.strip(_ORDER) for part in pair)]
            for left, right in pairs:
                for part in (left, right, left + right):
                    self._add_missing(part, vocabulary)
        model = models.BPE(vocabulary, pairs, ignore_merges=whole_words)
        library = Tokenizer(model)
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns()]
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        library.pre_tokenizer = pre_tokenizers.Sequence([*splits, as_bytes])
        return library

    def _add_missing(self, text: str, vocabulary: dict[str, int]) -> None:
        """Give a text that is no token an id of its own. Mutates `vocabulary`."""
        if text not in vocabulary:
            token = self._size + len(self._spelled)
            # The bytes of the text's own UTF-8 are looked up, so this finds ASCII characters only.
            self._spelled[token] = [self._letters[letter] for letter in text if letter in self._letters]
            vocabulary[text] = token


def _texts(pieces: list[bytes]) -> list[str | None]:
    """The pieces decoded; None for one that is not UTF-8."""
    joined = b"\n".join(pieces)
    if joined.count(b"\n") == len(pieces) - 1:
        try:
            return [*joined.decode().split("\n")]
        except UnicodeDecodeError:
            pass
    return [_text(piece) for piece in pieces]


def _text(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


def _pairs(merges: list[bytes]) -> list[tuple[str, str]]:
    """The two pieces of each merge, which part at the first space. Of repeated ones the first counts."""
    if len(set(merges)) < len(merges):
        merges = list(dict.fromkeys(merges))
    joined = b"\n".join(merges)
    if (
        joined.count(b"\n") == len(merges) - 1
        and joined.count(b" ") == len(merges)
        and all(map(contains, merges, repeat(b" ")))
    ):
        try:  # one space in each: all are cut at once
            pieces = joined.decode().replace("\n", " ").split(" ")
        except UnicodeDecodeError:
            pieces = [""]
        if all(pieces):
            return list(zip(pieces[::2], pieces[1::2], strict=True))
    parted = [text.partition(" ") for text in _texts(merges) if text] if merges else []
    return [(left, right) for left, _, right in parted if left and right]
