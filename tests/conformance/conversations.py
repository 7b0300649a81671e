"""Conversations that chat templates are compared on. Imports nothing, for two interpreters."""

DATE = (2026, 3, 9)


def _say(*texts, system=None):
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


CONVERSATIONS = {
    "one": _say("Hello, who are you?"),
    "system": _say("Hello", system="You are a pirate.\nBe brief."),
    "turns": _say("one", "The first reply.", "two\nthree", "Second: a, b & <c>.", "Last?"),
    "turns with system": _say("one", "The first reply.", "two", system="Be kind. /no_think"),
    "spaces": _say("  padded \n", " reply \n\n", "\n\nx  ", system="  s \n"),
    "unicode": _say("Žofie 😀 日本語", "naïve — “quoted”", "\u00a0e\u0301"),
    "thinking": _say("Why?", "<think>\nBecause.\nOr not?\n</think>\n\nYes.", "Sure?"),
    "thinking twice": _say("Why?", "<think>\nA\n</think>\n\nYes.", "Sure?", "<think>\nB\n</think>\n\nNo.", "Then?"),
    "response": _say("Why?", "<think>x</think><response>Yes.</response>", "Sure?"),
    "quotes": _say('it\'s "so" {{ 1 + 1 }} {% if %}', "{# c #} \\n", "</s>"),
}
