"""Writes engine/unicode_ranges.py: `python tests/conformance/make_unicode.py > engine/unicode_ranges.py`.

Needs a `unicodedata` of Unicode 15.1, the version of llama.cpp's tables: Python 3.13's own, or the package unicodedata2
15.1.0.
"""

import textwrap

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

HEAD = '''"""Letters, marks, numbers and punctuation of Unicode 15.1, as ranges.

Which characters a pattern's \\\\p{L} means depends on the library's version, but token ids must not. 15.1 is what
llama.cpp's tables hold. Written by tests/conformance/make_unicode.py from the Unicode Character Database.

Each text holds gaps and lengths in turn, in base 36: from 0, skip so many code points, take so many, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
'''

TAIL = '''

def ranges(packed: str) -> Iterator[tuple[int, int]]:
    """The first and last code points of each range."""
    at = 0
    numbers = iter(packed.split())
    for gap in numbers:
        first = at + int(gap, 36)
        at = first + int(next(numbers), 36)
        yield first, at - 1


def in_brackets(packed: str) -> str:
    """The ranges as a regular expression has them inside of [ ]."""
    return "".join(f"\\\\x{{{first:x}}}-\\\\x{{{last:x}}}" for first, last in ranges(packed))
'''


# deepseek-llm cuts words of the cased letters of these stretches: Latin to Armenian capitals, Georgian, Cherokee, …
STRETCHES = (
    (0x41, 0x556), (0x10A0, 0x10C5), (0x13A0, 0x13FD), (0x1C90, 0x2CF3),
    (0xA640, 0xA78E), (0xAB70, 0x104FB), (0x10C80, 0x118DF), (0x1E900, 0x1E943),
)  # fmt: skip


def base36(number):
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
        if not number:
            return digits


def packed(members):
    numbers, at = [], 0
    points = iter(sorted(members))
    point = next(points, None)
    while point is not None:
        first = last = point
        while (point := next(points, None)) == last + 1:
            last = point
        numbers += [first - at, last + 1 - first]
        at = last + 1
    return " ".join(map(base36, numbers))


def show(name, members):
    lines = textwrap.wrap(packed(members), 110, drop_whitespace=False)
    print(f"{name} = (")
    for line in lines:
        print(f'    "{line}"')
    print(")")


def main():
    assert unicodedata.unidata_version == "15.1.0"
    print(HEAD)
    scalars = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for name, initial in (("LETTERS", "L"), ("MARKS", "M"), ("NUMBERS", "N"), ("PUNCTUATION", "P")):
        show(name, [c for c in scalars if unicodedata.category(chr(c))[0] == initial])
    cased = [c for low, high in STRETCHES for c in scalars if low <= c <= high]
    show("CASED_LETTERS_OF_DEEPSEEK", [c for c in cased if unicodedata.category(chr(c)) in ("Lu", "Ll", "Lt")])
    print(TAIL, end="")


if __name__ == "__main__":
    main()
