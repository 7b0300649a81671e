"""The bundled model file and the recipe that made it."""

from __future__ import annotations

from itertools import islice

import gguf
import jinja2.sandbox
import numpy as np
import pytest

import assets
from assets.recipe.corpus import conversations
from assets.recipe.facts import FACTS
from engine.gguf import GGUF
from engine.tokenizer import Tokenizer

ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
    return gguf.GGUFReader(assets.bundled_model_path())


def value(reader: gguf.GGUFReader, key: str):
    return reader.fields[key].contents()


def test_the_file_is_small_enough_for_a_repository():
    assert 1_000_000 < assets.bundled_model_path().stat().st_size <= 12 * 1024 * 1024


def test_a_missing_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(assets, "files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"guide\.gguf"):
        assets.bundled_model_path()


def test_metadata_says_what_an_engine_needs(reader):
    assert value(reader, "general.architecture") == "llama"
    assert value(reader, "general.name") == "guide"
    assert value(reader, "general.license") == "mit"
    assert value(reader, "llama.context_length") == 2048
    assert value(reader, "tokenizer.ggml.model") == "llama"
    assert value(reader, "tokenizer.ggml.add_bos_token") is True
    assert value(reader, "tokenizer.ggml.add_space_prefix") is False
    assert 0 < value(reader, "general.sampling.temp") < 1
    assert value(reader, "general.sampling.top_k") == 40


def test_every_matrix_is_whole_q8_0_blocks_and_every_number_is_finite(reader):
    width, layers = value(reader, "llama.embedding_length"), value(reader, "llama.block_count")
    assert len(reader.tensors) == 2 + 9 * layers
    for tensor in reader.tensors:
        shape = list(tensor.shape)  # the fastest axis first
        if len(shape) == 2:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.Q8_0
            assert shape[0] % 32 == 0
        else:
            assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
            assert shape == [width]
        assert np.isfinite(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).all()


def test_vocabulary_has_bytes_controls_and_an_end_of_turn(reader):
    texts, types = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.token_type")
    assert len(texts) == len(set(texts)) == len(types) == len(value(reader, "tokenizer.ggml.scores")) == 2048
    assert [texts[token] for token, kind in enumerate(types) if kind == gguf.TokenType.BYTE] == [
        f"<0x{byte:02X}>" for byte in range(256)
    ]
    assert [texts[token] for token, kind in enumerate(types) if kind == gguf.TokenType.UNKNOWN] == ["<unk>"]
    assert {texts[token] for token, kind in enumerate(types) if kind == gguf.TokenType.CONTROL} == {
        "<s>",
        "</s>",
        *ROLES,
    }
    assert texts[value(reader, "tokenizer.ggml.bos_token_id")] == "<s>"
    assert texts[value(reader, "tokenizer.ggml.eos_token_id")] == "</s>"
    assert texts[value(reader, "tokenizer.ggml.eot_token_id")] == "<|end|>"


def test_vocabulary_round_trips():
    vocabulary = Tokenizer.from_gguf(GGUF.open(assets.bundled_model_path()))
    for text in (
        "What is a savepoint?",
        "hello  world\n\tend ",
        "naïve 日本語 🦊",
        "<|end|> is no token here",
        " a",
        "",
    ):
        ids = vocabulary.encode(text, add_bos=False)
        assert vocabulary.decode(ids) == text
        assert not any(vocabulary.is_end_of_turn(token) for token in ids)
    assert len(vocabulary.encode("What is a savepoint?", add_bos=False)) <= 6
    assert vocabulary.is_end_of_turn(vocabulary.encode("<|end|>", add_bos=False, parse_special=True)[0])


def test_template_renders_in_a_sandbox(reader):
    template = jinja2.sandbox.ImmutableSandboxedEnvironment().from_string(value(reader, "tokenizer.chat_template"))
    talk = [
        {"role": role, "content": text}
        for role, text in (("system", "Be brief."), ("user", "hello"), ("assistant", "Hi!"))
    ]
    whole = "<s><|system|>Be brief.<|end|><|user|>hello<|end|><|assistant|>Hi!<|end|>"
    assert template.render(messages=talk, bos_token="<s>", add_generation_prompt=False) == whole
    asked = template.render(messages=talk[1:2], bos_token="<s>", add_generation_prompt=True)
    assert asked == "<s><|user|>hello<|end|><|assistant|>"


def test_generator_is_deterministic_and_its_seed_matters():
    once, again, other = (list(islice(conversations(seed), 200)) for seed in (7, 7, 8))
    assert once == again
    assert once != other


def test_generated_text_is_clean_and_takes_turns():
    for talk in islice(conversations(11), 2000):
        roles = [role for role, _ in talk]
        if roles == ["text"]:
            continue
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        for role, text in talk:
            assert text.strip(), talk
            if role == "assistant":
                assert text == text.strip()
                assert not set("{}<>") & set(text)
                assert "  " not in text


def test_every_answer_about_the_app_reaches_the_corpus():
    said = {text for talk in islice(conversations(5), 12000) for role, text in talk if role == "assistant"}
    missing = [topic for topic, fact in FACTS.items() if not any(fact.short in text for text in said)]
    assert missing == []
