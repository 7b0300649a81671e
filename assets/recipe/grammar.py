"""A tiny text grammar: `{a|b|}` chooses a part, `[name]` is filled; one seeded `random.Random` decides."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

_INNERMOST = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"\[([a-z_0-9]+)\]")


def expand(rng: random.Random, text: str, slots: Mapping[str, str] | None = None) -> str:
    """Choose one part of every `{a|b}` from the inside out, fill the slots, and tidy spaces and sentence starts."""
    while True:
        chosen = _INNERMOST.sub(lambda match: rng.choice(match.group(1).split("|")), text)
        if chosen == text:
            break
        text = chosen
    if slots:
        text = _SLOT.sub(lambda match: slots.get(match.group(1), match.group(0)), text)
    text = re.sub(r"  +", " ", text).strip()
    return re.sub(r" ([,.!?])(?!\w)", r"\1", text)


def with_article(noun: str) -> str:
    """The noun phrase with a or an in front."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def capital(text: str) -> str:
    """The text with its first letter in upper case; all else untouched."""
    return text[:1].upper() + text[1:]


def as_asked(rng: random.Random, question: str) -> str:
    """The question as hurried people type it: other case, other marks, some words around it, now and then a typo."""
    text = question
    asks = re.match(r"(what|how|why|where|which|who|can|do|does|is|are|will|may|should|when|am|did)\b", text.lower())
    if asks and rng.random() < 0.12:
        text = (
            rng.choice(
                [
                    "ok, ",
                    "and ",
                    "so ",
                    "please, ",
                    "hey, ",
                    "hi, ",
                    "tell me, ",
                    "one question: ",
                    "guide, ",
                    "okay ",
                    "now ",
                ]
            )
            + text
        )
    if asks and rng.random() < 0.06:
        text += rng.choice([" please", " again", ", please", " exactly", " here", " in this app", " then", " now"])
    style = rng.random()
    if style < 0.55:
        text = capital(text)
    elif style < 0.80:
        text = text.lower()
    if not text.endswith(("?", ".", "!")):
        roll = rng.random()
        if asks:
            text += "?" if roll < 0.75 else ""
        else:
            text += "." if roll < 0.5 else ("!" if roll < 0.55 else "")
    if rng.random() < 0.015:
        text = _typo(rng, text)
    return text


def _typo(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text))
    if not text[at].isalpha() or at + 1 >= len(text):
        return text
    return (
        text[:at]
        + (text[at + 1] + text[at] if rng.random() < 0.5 else "")
        + text[at + (2 if rng.random() < 0.5 else 1) :]
    )


_PIRATE = {
    "you": "ye", "your": "yer", "yours": "yers", "my": "me", "is": "be", "are": "be", "am": "be", "hello": "ahoy",
    "yes": "aye", "friend": "matey", "friends": "mateys", "computer": "ship", "and": "an'", "the": "th'", "of": "o'",
    "it's": "'tis", "money": "gold", "old": "salty", "very": "mighty", "good": "fine", "over": "o'er", "never": "ne'er",
}  # fmt: skip


def pirate(rng: random.Random, text: str) -> str:
    """The text in a pirate's words."""

    def swap(match: re.Match[str]) -> str:
        word = match.group(0)
        other = _PIRATE.get(word.lower())
        if other is None:
            return word
        return capital(other) if word[0].isupper() else other

    body = re.sub(r"(?<![/\w])[A-Za-z']+(?!\w)", swap, text)
    end = rng.choice(["", "", " Arr!", " Yo ho ho!", " Aye!", " Me hearty!", " Har har!"])
    return rng.choice(["Arr! ", "Arr, ", "Ahoy! ", "Aye, matey! ", "Yo ho! ", "Shiver me timbers! "]) + body + end
