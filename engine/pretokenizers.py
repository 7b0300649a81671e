"""How byte-pair vocabularies cut text into words before merging, by the name in `tokenizer.ggml.pre`.

The names, which of them mean the same, and what each cuts are llama.cpp's, whose ids these vocabularies are used with.
Its regular expressions see a text in which every letter beyond ASCII looks alike, likewise numbers, punctuation and
white space; the patterns here say the same to a library that sees the characters themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from engine import unicode_ranges

# Inside of brackets: <L> letters, <M> marks, <N> numbers, <P> punctuation.
_CLASSES = {
    "<L>": unicode_ranges.LETTERS,
    "<M>": unicode_ranges.MARKS,
    "<N>": unicode_ranges.NUMBERS,
    "<P>": unicode_ranges.PUNCTUATION,
    "<cased>": unicode_ranges.CASED_LETTERS_OF_DEEPSEEK,
}

_CONTRACTION = "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"

_GPT2 = r"'(?:[stmd]|re|ve|ll)| ?[<L>]+| ?[<N>]+| ?[^\s<L><N>]+|\s+(?!\S)|\s+"
_DIGIT = "[<N>]"
_LLAMA3 = rf"{_CONTRACTION}|[^\r\n<L><N>]?[<L>]+|[<N>]{{1,3}}| ?[^\s<L><N>]+[\r\n]*|{_SPACES}"
_QWEN2 = rf"{_CONTRACTION}|[^\r\n<L><N>]?[<L>]+|[<N>]| ?[^\s<L><N>]+[\r\n]*|{_SPACES}"
_QWEN35 = rf"{_CONTRACTION}|[^\r\n<L><N>]?[<L><M>]+|[<N>]| ?[^\s<L><M><N>]+[\r\n]*|{_SPACES}"
# Words that begin with capitals: in llama.cpp every letter beyond ASCII counts as large and as small.
_LARGE, _SMALL = "[[<L>]&&[^a-z]]", "[[<L>]&&[^A-Z]]"
_BY_CASE = (rf"[^\r\n<L><N>]?{_LARGE}*{_SMALL}+", rf"[^\r\n<L><N>]?{_LARGE}+{_SMALL}*")
_TEKKEN = rf"{_BY_CASE[0]}|{_BY_CASE[1]}|[<N>]| ?[^\s<L><N>]+[\r\n/]*|{_SPACES}"
_GPT4O = (
    rf"{_BY_CASE[0]}(?:{_CONTRACTION})?|{_BY_CASE[1]}(?:{_CONTRACTION})?"
    rf"|[<N>]{{1,3}}| ?[^\s<L><N>]+[\r\n/]*|{_SPACES}"
)
_LINE_END = r"[\r\n]"
# DeepSeek's stretch of East Asian letters begins at U+0800; the white space in it belongs to no class.
_EAST_ASIAN = r"[[\x{800}-\x{9fa5}\x{ac00}-\x{d7ff}]&&\S]+"
_DEEPSEEK_LLM = (
    _LINE_END,
    r"\s?[<cased>]+",
    r"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3001}\x{3002}]+",
    r"\s+\z",
    _EAST_ASIAN,
    "[<N>]+",
)
_DEEPSEEK_CODER = (_LINE_END, r"\s?[<L>]+", r"\s?[<P>]+", _EAST_ASIAN, _DIGIT)
_THREE_DIGITS = "[0-9][0-9][0-9]"
_FALCON = ("[<P>$+<=>^~|`]+", _GPT2, _THREE_DIGITS)
_DEFAULT = ("[<P>$+<=>^~|]+", _GPT2, "[<N>]+", _THREE_DIGITS)


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """`splits` are patterns, each applied to the pieces that the one before left: matches and what lies between.

    `whole_words`: a word that is a token is taken as it is, whatever the merges make of it. `add_bos` holds where the
    file does not say.
    """

    splits: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False

    def patterns(self) -> list[str]:
        """The splits as regular expressions in Oniguruma's syntax."""
        expanded = list(self.splits)
        for mark, packed in _CLASSES.items():
            if any(mark in split for split in expanded):
                body = unicode_ranges.in_brackets(packed)
                expanded = [split.replace(mark, body) for split in expanded]
        return expanded


_LLAMA_BPE = PreTokenizer((_LLAMA3,), whole_words=True, add_bos=True)
_ONE_DIGIT = PreTokenizer((_DIGIT, _GPT2))
_PLAIN = PreTokenizer((_GPT2,))
_QWEN = PreTokenizer((_QWEN2,))
_CAPITALS = PreTokenizer((_GPT4O,))

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = MappingProxyType(
    {
        "default": PreTokenizer(_DEFAULT),
        "": PreTokenizer(_DEFAULT),  # files from before the field
        "falcon": PreTokenizer(_FALCON),
        "deepseek-llm": PreTokenizer(_DEEPSEEK_LLM),
        "deepseek-coder": PreTokenizer(_DEEPSEEK_CODER),
        "qwen35": PreTokenizer((_QWEN35,)),
        "tekken": PreTokenizer((_TEKKEN,), whole_words=True, add_bos=True),
        # As llama-bpe, but for the flags.
        "dbrx": PreTokenizer((_LLAMA3,)),
        "smaug-bpe": PreTokenizer((_LLAMA3,)),
        "chatglm-bpe": PreTokenizer((_LLAMA3,)),
        "glm4": PreTokenizer((_LLAMA3,), whole_words=True),
    }
    | dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), _LLAMA_BPE
    )
    | dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "grok-2", "solar-open"), _QWEN)
    | dict.fromkeys(("gpt-4o", "llama4", "kanana2", "minimax-m2"), _CAPITALS)
    | dict.fromkeys(("starcoder", "refact", "command-r", "smollm"), _ONE_DIGIT)
    | dict.fromkeys(("codeshell", "exaone", "minerva-7b", "mellum2"), _ONE_DIGIT)
    | dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling"), _PLAIN)
    | dict.fromkeys(("gigachat", "exaone4", "mellum", "modern-bert", "a.x-4.0", "roberta-bpe"), _PLAIN)
    | dict.fromkeys(("jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code"), _PLAIN)
)
