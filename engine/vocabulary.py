"""A vocabulary out of a GGUF's own fields: pieces, types, and what the special ones among them mean.

The rules are those of llama.cpp, which the files are made for: defaults where a field is missing, tokens known by their
text whatever type the file gives them, and every token by which a model ends its turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import BadGGUF, UnsupportedTokenizer
from engine.gguf import GGUF, StringArray
from engine.pretokenizers import PRE_TOKENIZERS, PreTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SENTENCE_PIECE, BYTE_PAIR = "llama", "gpt2"  # the values of `tokenizer.ggml.model`

_BYTE = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
_END_OF_SENTENCE = "<｜end▁of▁sentence｜>"
# Texts of the tokens that end a turn or a text. A vocabulary may have several.
_ENDS = frozenset(
    {
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
        "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
        "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", _END_OF_SENTENCE, "[e~[",
    }
)  # fmt: skip
# Tokens around code to fill in, where the file does not name them: field, texts, and whether they end a text.
_AROUND_CODE = (
    ("fim_pre", ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
                 "<|code_prefix|>", "<|prefix|>"), False),
    ("fim_suf", ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
                 "<|code_suffix|>", "<|suffix|>"), False),
    ("fim_mid", ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
                 "<|code_middle|>", "<|middle|>"), False),
    ("fim_pad", ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"), True),
    ("fim_rep", ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"), True),
    ("fim_sep", ("<|file_sep|>",), True),
)  # fmt: skip
# Steps of a reply that people may see: plain text, whatever type the file gives them.
_STEPS = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
_NAMED = (
    _ENDS.union(_STEPS, *(texts for _, texts, _ in _AROUND_CODE))
    | {"<|plamo:eos|>", "<mask>", "[MASK]", "<unk>", "<s>"}
)  # fmt: skip

Types = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF says about its tokens, checked.

    `pieces` are the texts as bytes, `types` int32 (n,), `scores` float32 (n,), `merges` as they lie in the file.
    `strips_right` and `strips_left` hold tokens that swallow the white space behind and before them.
    """

    model: str
    pieces: list[bytes]
    types: Types
    scores: Scores
    merges: StringArray | None
    pre: PreTokenizer | None
    bos_id: int | None
    eos_id: int | None
    unknown_id: int | None
    end_ids: frozenset[int]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    strips_right: frozenset[int]
    strips_left: frozenset[int]

    @classmethod
    def from_gguf(cls, gguf: GGUF) -> Vocabulary:
        """Read and check. Raises UnsupportedTokenizer, BadGGUF (fields that are missing or contradict)."""
        model = gguf.text("tokenizer.ggml.model")
        if model not in (SENTENCE_PIECE, BYTE_PAIR):
            raise UnsupportedTokenizer(model)
        byte_pair = model == BYTE_PAIR
        pre, merges = (_pre_tokenizer(gguf), _merges(gguf)) if byte_pair else (None, None)
        pieces, scores, types = _pieces(gguf)
        named = _named(pieces)
        ids = {name: _id(gguf, name, len(pieces)) for name in ("bos", "eos", "unknown", "eot", "eom")}
        if not byte_pair:
            for name, default in (("bos", 1), ("eos", 2), ("unknown", 0)):
                if f"tokenizer.ggml.{name}_token_id" not in gguf.metadata and default < len(pieces):
                    ids[name] = default
        ends = _end_ids(gguf, len(pieces), named, types, [ids[name] for name in ("eos", "eot", "eom")])
        right, left = _stripping(gguf, named, types)
        return cls(
            model=model,
            pieces=pieces,
            types=types,
            scores=scores,
            merges=merges,
            pre=pre,
            bos_id=ids["bos"],
            eos_id=ids["eos"],
            unknown_id=ids["unknown"],
            end_ids=ends,
            add_bos=gguf.flag("tokenizer.ggml.add_bos_token", pre.add_bos if pre else True),
            add_eos=gguf.flag("tokenizer.ggml.add_eos_token", False),
            add_space_prefix=not byte_pair and gguf.flag("tokenizer.ggml.add_space_prefix", True),
            strips_right=right,
            strips_left=left,
        )

    def fields(self) -> dict[str, Any]:
        """Everything that decides ids and text, but for the long lists; plain JSON values."""
        return {
            "model": self.model,
            "pre": None if self.pre is None else [*self.pre.patterns(), self.pre.whole_words],
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "unknown_id": self.unknown_id,
            "end_ids": sorted(self.end_ids),
            "add_bos": self.add_bos,
            "add_eos": self.add_eos,
            "add_space_prefix": self.add_space_prefix,
            "strips_right": sorted(self.strips_right),
            "strips_left": sorted(self.strips_left),
        }


def _pre_tokenizer(gguf: GGUF) -> PreTokenizer:
    name = gguf.text("tokenizer.ggml.pre", "")
    pre = PRE_TOKENIZERS.get(name)
    if pre is None:
        raise UnsupportedTokenizer(f"{BYTE_PAIR} with tokenizer.ggml.pre {name}")
    return pre


def _merges(gguf: GGUF) -> StringArray:
    merges = gguf.metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, StringArray):
        raise BadGGUF(gguf.path, "tokenizer.ggml.merges", "is missing or not a list of strings")
    return merges


def _pieces(gguf: GGUF) -> tuple[list[bytes], Scores, Types]:
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, StringArray) or not len(tokens):
        raise BadGGUF(gguf.path, "tokenizer.ggml.tokens", "is missing or not a list of strings")
    count = len(tokens)
    scores = _numbers(gguf, "tokenizer.ggml.scores", count, np.zeros(count, np.float32)).astype("<f4")
    types = _numbers(gguf, "tokenizer.ggml.token_type", count, np.full(count, NORMAL, np.int32)).astype("<i4")
    types[(types < NORMAL) | (types > BYTE)] = NORMAL
    pieces = tokens.raw()
    for token in np.flatnonzero(types == BYTE).tolist():
        if _BYTE.fullmatch(pieces[token]) is None:
            types[token] = CONTROL
    return pieces, np.nan_to_num(scores, nan=-1e30, posinf=1e30, neginf=-1e30), types


def _numbers(gguf: GGUF, key: str, count: int, default: npt.NDArray[Any]) -> npt.NDArray[Any]:
    values = gguf.metadata.get(key, default)
    if not isinstance(values, np.ndarray) or values.shape != (count,):
        raise BadGGUF(gguf.path, key, f"is not a list of {count} numbers, one for each token")
    return values


def _id(gguf: GGUF, name: str, count: int) -> int | None:
    """A field's token. Some files write -1 for "none", as an unsigned number: so whatever is no token means none."""
    value = gguf.metadata.get(f"tokenizer.ggml.{name}_token_id")
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count else None


def _named(pieces: list[bytes]) -> dict[str, list[int]]:
    """The tokens whose text means something here, by that text."""
    raw = {text.encode(): text for text in _NAMED}
    named: dict[str, list[int]] = {}
    for token, piece in enumerate(pieces):
        if piece in raw:
            named.setdefault(raw[piece], []).append(token)
    return named


def _tokens(named: Mapping[str, list[int]], texts: Iterable[str]) -> list[int]:
    return sorted(token for text in texts for token in named.get(text, ()))


def _end_ids(
    gguf: GGUF, count: int, named: Mapping[str, list[int]], types: Types, fields: list[int | None]
) -> frozenset[int]:
    """Every token that ends a turn or a text. Mutates `types`: what steers is CONTROL, whatever the file says."""
    ends = set()
    for name, texts, is_end in _AROUND_CODE:
        token = _id(gguf, name, count)
        if token is None:
            token = next(iter(_tokens(named, texts)), None)
            if token is not None:
                types[token] = CONTROL
        if is_end and token is not None:
            ends.add(token)
    by_text = _tokens(named, _ENDS)
    types[by_text] = CONTROL
    types[_tokens(named, _STEPS)] = USER_DEFINED
    ends |= {*by_text, *(token for token in fields if token is not None)}
    has = {text for text, tokens in named.items() if ends.intersection(tokens)}
    calls = bool({"<|call|>", "<|calls|>"} & has)
    if calls and "<|end|>" in has and {"<|return|>", "<|flush|>"} & has:
        # Here <|end|> ends a part of a reply, and the reply goes on.
        ends.difference_update(named["<|end|>"])
        types[named["<|end|>"]] = USER_DEFINED
    if "</s>" in has and {"<|tool_response>", "<|plamo:eos|>"} & has:
        ends.difference_update(named["</s>"])
        types[named["</s>"]] = NORMAL
    return frozenset(ends)


def _stripping(gguf: GGUF, named: Mapping[str, list[int]], types: Types) -> tuple[frozenset[int], frozenset[int]]:
    """Tokens that swallow white space behind them, and before them: no field says so, only the model's name."""
    name = str(gguf.metadata.get("general.name", "")).lower()
    pre = str(gguf.metadata.get("tokenizer.ggml.pre", ""))
    if any(jina in pre for jina in ("jina-v2-de", "jina-v2-es", "jina-v2-code")):
        return frozenset(), frozenset(named.get("<mask>", ()))
    if "phi-3" in name or "phi3" in name:
        special = np.flatnonzero((types == CONTROL) | (types == USER_DEFINED) | (types == UNKNOWN)).tolist()
        kept = _tokens(named, ("<unk>", "<s>", "<|endoftext|>"))
        return frozenset(special).difference(kept), frozenset()
    if "modern-bert" in name:
        return frozenset(), frozenset(named.get("[MASK]", ()))
    return frozenset(), frozenset()
