"""Vocabularies for tests: a corpus to train them on, and GGUF files that hold nothing else."""

import random

import gguf

from engine.gguf import GGUF
from engine.tokenizer import Tokenizer


def corpus():
    """Sentences made from a few word lists, some with umlauts, digits, emoji and runs of spaces."""
    rng = random.Random(11)
    names = ["Anna", "Björn", "Chloé", "Dmitri", "Žofie", "李雷"]
    verbs = ["saves", "forks", "names", "restores", "forgets", "finds"]
    things = ["the branch", "a savepoint", "an old turn", "café №5", "the dice 😀", "x = 12345", "  two  spaces"]
    return [f"{rng.choice(names)} {rng.choice(verbs)} {rng.choice(things)}, {rng.randrange(999)}." for _ in range(4000)]


def write_gguf(path, pieces, scores, types, *, model="llama", merges=None, **fields):
    """`fields` are named as in tokenizer.ggml.NAME; general_NAME is general.NAME."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    if pieces is not None:
        writer.add_token_list(pieces)
    if scores is not None:
        writer.add_token_scores(scores)
    if types is not None:
        writer.add_token_types(types)
    if merges is not None:
        writer.add_array("tokenizer.ggml.merges", merges or [""])  # the writer leaves empty lists out
    for name, value in fields.items():
        key = f"tokenizer.ggml.{name}".replace("tokenizer.ggml.general_", "general.")
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def load(path):
    with GGUF.open(path) as opened:
        return Tokenizer.from_gguf(opened)
