"""Random texts for tokenizers, the same for the same seed; no imports but the standard library's, for two interpreters.

A text is a few pieces, each of another kind: words, contractions, digits, white space, code, scripts, marks, symbols,
texts of special tokens, and code points from anywhere.
"""

import random

WORDS = (
    "the", "The", "THE", "a", "I", "don't", "it's", "WE'LL", "they've", "I'm", "you'd", "'S", "'Re", "'ſ", "o'clock",
    "café", "naïve", "Ünïcödé", "Straße", "ИСТОРИЯ", "история", "γλώσσα", "ΓΛΏΣΣΑ", "שלום", "العربية", "हिन्दी", "বাংলা",
    "தமிழ்", "ไทย", "日本語", "中文字符", "한국어", "ქართული", "ᏣᎳᎩ", "camelCase", "HTTPServer", "XMLParser", "iPhone",
    "snake_case", "kebab-case", "x1y2z3", "0x1F", "3.14", "1,000,000", "12:34", "2026-11-24", "http://a.b/c?d=e&f=g",
    "user@host.org", "C:\\path",
)  # fmt: skip
CODE = (
    "def f(x):", "    return x+1", "\tif (a&&b) {", "};\r\n", "// note", "/* */", "<b>bold</b>", "$x^2$", "`code`",
    "```\n", "#include <a.h>", "x != y", "->", "=>", "...", "!!!", "?!", "--", "____", "/n", "//\n\n", "(((", ")))",
    "~|^`", "$+<=>",
)  # fmt: skip
SPACES = (
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\v",
    "\f",
    "\x85",
    "\xa0",
    "\u2003",
    "\u2028",
    "\u3000",
    "\u1680",
    "\u200b",
    "\ufeff",
    "\x1c",
    "\x1f",
)
MARKERS = (
    "<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>",
    "<|user|>", "<|end|>", "<0x41>", "[INST]", "<|", "|>", "▁", "▁▁", "Ġ", "Ċ", "Ã",
)  # fmt: skip
BLOCKS = (
    (0x00, 0x20), (0x20, 0x7F), (0x80, 0x100), (0x100, 0x250), (0x250, 0x370), (0x370, 0x600), (0x600, 0xE00),
    (0xE00, 0x1100), (0x1100, 0x1700), (0x1C80, 0x1D00), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x2400),
    (0x2400, 0x2C00), (0x2C00, 0x3000), (0x3000, 0x3100), (0x3100, 0x4E00), (0x4E00, 0xA000), (0xA000, 0xAC00),
    (0xAC00, 0xD800), (0xE000, 0xF900), (0xF900, 0x10000), (0x10000, 0x11000), (0x11000, 0x1E000), (0x1E000, 0x20000),
    (0x2EB00, 0x2EF00), (0xE0000, 0xE0200), (0x10000, 0x110000),
)  # fmt: skip


def _piece(rng):
    kind = rng.randrange(10)
    if kind < 2:
        return rng.choice(WORDS)
    if kind == 2:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(1, 5)))
    if kind == 3:
        return "".join(rng.choice("0123456789٣४½Ⅷ²") for _ in range(rng.randrange(1, 9)))
    if kind == 4:
        return "".join(rng.choice(SPACES) if rng.random() < 0.4 else " " for _ in range(rng.randrange(1, 6)))
    if kind == 5:
        return rng.choice(CODE)
    if kind == 6:
        return rng.choice(MARKERS)
    if kind == 7:
        return "".join(rng.choice("aAzZéÉ'sStTlLdDrReEvVmM\u0301\u0940 \n") for _ in range(rng.randrange(1, 9)))
    low, high = rng.choice(BLOCKS)
    points = [rng.randrange(low, high) for _ in range(rng.randrange(1, 7 if kind == 8 else 3))]
    return "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


def random_texts(count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        between = rng.choice(("", "", " "))
        yield between.join(_piece(rng) for _ in range(rng.randrange(1, 9)))
