"""Which tokens end a turn, and which types the file's own are overruled: llama.cpp's rules, by name and by field."""

import pytest

from engine.tokenizer import CONTROL, NORMAL, USER_DEFINED
from tests.unit.vocabularies import load, write_gguf


@pytest.fixture
def make(tmp_path):
    """A vocabulary of a, b and the given (text, type)s from id 2 on."""

    def made(*special, **fields):
        pieces, types = ["a", "b", *(text for text, _ in special)], [NORMAL, NORMAL, *(kind for _, kind in special)]
        return load(
            write_gguf(tmp_path / "v.gguf", pieces, None, types, model="gpt2", merges=[], pre="gpt-2", **fields)
        )

    return made


@pytest.mark.parametrize(
    "text",
    ["<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>", "[EOT]", "</s>",
     "<|end_of_text|>", "<eos>", "<｜end▁of▁sentence｜>", "<|return|>", "<end_of_utterance>"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [NORMAL, CONTROL, USER_DEFINED])
def test_by_text_whatever_the_type(make, text, kind):
    tokenizer = make((text, kind))
    assert tokenizer.end_ids == {2}
    assert tokenizer.is_special(2)
    assert 2 not in tokenizer.encode(text)
    assert tokenizer.encode(text, parse_special=True) == [2]


def test_by_field(make):
    markers = [(f"<{i}>", CONTROL) for i in range(6)]
    tokenizer = make(*markers, eos_token_id=2, eot_token_id=3, eom_token_id=4, fim_pad_token_id=5, bos_token_id=7)
    assert tokenizer.end_ids == {2, 3, 4, 5}
    assert make(*markers, eos_token_id=99, eot_token_id=0xFFFFFFFF).end_ids == frozenset()


def test_around_code(make):
    """A file's or a repository's end ends a text; where a gap begins and ends does not, but is no plain text either."""
    tokenizer = make(
        ("<|fim_pad|>", NORMAL), ("<|repo_name|>", NORMAL), ("<|file_sep|>", NORMAL), ("<|fim_prefix|>", NORMAL)
    )
    assert tokenizer.end_ids == {2, 3, 4}
    assert all(map(tokenizer.is_special, range(2, 6)))


def test_a_part_of_a_reply_does_not_end_it(make):
    names = ("<|end|>", "<|return|>", "<|call|>", "<|channel|>", "<|message|>")
    tokenizer = make(*((name, CONTROL) for name in names))
    assert tokenizer.end_ids == {3, 4}
    assert not any(map(tokenizer.is_special, (2, 5, 6)))  # they are seen in a reply
    assert make(("<|end|>", CONTROL), ("<|return|>", CONTROL)).end_ids == {2, 3}
    assert make(("<|end|>", CONTROL), ("<|flush|>", CONTROL), ("<|calls|>", CONTROL)).end_ids == {3, 4}


def test_a_plain_s_where_others_end(make):
    assert make(("</s>", CONTROL), ("<|tool_response>", CONTROL)).end_ids == {3}
    assert not make(("</s>", CONTROL), ("<|tool_response>", CONTROL)).is_special(2)
    assert make(("</s>", CONTROL), ("<|plamo:eos|>", CONTROL)).end_ids == {2}
    assert make(("</s>", CONTROL), ("<|plamo:eos|>", CONTROL), eos_token_id=3).end_ids == {3}


def test_tokens_that_swallow_white_space(make):
    plain = make(("[MASK]", CONTROL), ("Ġ", NORMAL), ("Ċ", NORMAL))
    assert plain.encode("a \n[MASK]b", parse_special=True) == [0, 3, 4, 2, 1]
    bert = make(("[MASK]", CONTROL), ("Ġ", NORMAL), ("Ċ", NORMAL), general_name="Modern-BERT base")
    assert bert.encode("a \n[MASK] b", parse_special=True) == [0, 2, 3, 1]
    phi = make(("<|user|>", CONTROL), ("</s>", NORMAL), ("Ġ", NORMAL), general_name="phi-3 mini")
    assert phi.encode("<|user|> \n a</s> b", parse_special=True) == [2, 0, 3, 1]
    assert phi.encode("a <|user|>", parse_special=True) == [0, 4, 2]
