"""Chat templates in the styles of the families people download, rendered as transformers renders them."""

import datetime
import json

import pytest

from engine.chat_template import ChatTemplate
from tests.conformance.conversations import CONVERSATIONS, DATE
from tests.conformance.make_template_goldens import SPECIALS, TARGET, TEMPLATES

SPECIAL_TEXTS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<think>",
    "</think>",
    "[INST]",
    "[/INST]",
    "</s>",
)


@pytest.fixture(scope="module")
def goldens():
    return json.loads(TARGET.read_text())["rendered"]


def template(name):
    return ChatTemplate(TEMPLATES[name].read_text(), None, SPECIALS["bos_token"], SPECIALS["eos_token"], SPECIAL_TEXTS)


def rendered(name, messages, header):
    return template(name).render(messages, add_generation_prompt=header, date=datetime.datetime(*DATE))


@pytest.mark.parametrize("name", TEMPLATES)
def test_equal_to_transformers(goldens, name):
    compared = 0
    for title, messages in CONVERSATIONS.items():
        for header, text in zip((True, False), goldens[name][title], strict=True):
            got = rendered(name, messages, header)
            if text is not None:
                compared += 1
                assert got.text == text, title
                assert got.fallback is None
            else:
                # Refused: the text of the system message goes into the first question.
                assert messages[0]["role"] == "system"
                assert got.fallback is None, got.fallback
                assert messages[0]["content"].strip() in got.text
    assert compared >= 14


def test_what_the_template_drops_is_not_content(goldens):
    """Thinking of earlier turns, where the style strips it: what is left of the reply is known as its content."""
    for name in ("qwen3", "deepseek-r1", "granite"):
        title = "response" if name == "granite" else "thinking"
        got = rendered(name, CONVERSATIONS[title], True)
        said = [piece.text.strip() for piece in got.pieces if piece.message == 1]
        assert said == ["Yes."], name
