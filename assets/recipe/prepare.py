"""Vocabulary and training shards.

    python -m assets.recipe.prepare vocab WORK            trains WORK/guide.model (SentencePiece, BPE, byte fallback)
    python -m assets.recipe.prepare shard WORK SEED N [PRACTICE]     writes WORK/shard-SEED.npz with about N tokens

A shard holds `tokens` (uint16) and `weight` (uint8, percent: 100 where the loss counts in full). What a person says
counts little: the model need not learn to ask, but reading gets better when it predicts a bit of it.
"""

from __future__ import annotations

import io
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import sentencepiece

from assets.recipe.corpus import Message, conversations

VOCABULARY = 2048
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
END = "<|end|>"


def train_vocabulary(work: Path, count: int = 12000) -> None:
    """Train the SentencePiece model on the texts of `count` conversations."""
    lines = [
        line for talk in islice(conversations(4242), count) for _, text in talk for line in text.split("\n") if line
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        character_coverage=1.0,
        control_symbols=[*ROLES.values(), END],
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_digits=True,
        hard_vocab_limit=True,
        max_sentence_length=20000,
        num_threads=2,
        minloglevel=1,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        required_chars="".join(map(chr, range(33, 127))),
    )  # fmt: skip
    (work / "guide.model").write_bytes(model.getvalue())


def load_vocabulary(work: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(work / "guide.model"))


def encode(vocabulary: sentencepiece.SentencePieceProcessor, talk: list[Message]) -> tuple[list[int], list[int]]:
    """Tokens of one conversation in the chat template's form, and the weight of each in the loss."""
    tokens, weight = [vocabulary.bos_id()], [0]
    end = vocabulary.piece_to_id(END)
    for role, text in talk:
        ids = vocabulary.encode(text)
        if role == "text":
            tokens += [*ids, vocabulary.eos_id()]
            weight += [50] * (len(ids) + 1)
            continue
        if role == "open":
            tokens += [vocabulary.piece_to_id(ROLES["assistant"]), *ids]
            weight += [5] + [100] * len(ids)
            continue
        full = 100 if role == "assistant" else 8
        tokens += [vocabulary.piece_to_id(ROLES[role]), *ids, end]
        weight += [5] + [full] * (len(ids) + 1)
    return tokens, weight


def write_shard(work: Path, seed: int, count: int, practice: float) -> None:
    """Write one shard of at least `count` tokens, made by the generator with this seed."""
    vocabulary = load_vocabulary(work)
    tokens: list[int] = []
    weights: list[int] = []
    for talk in conversations(seed, practice):
        ids, weight = encode(vocabulary, talk)
        tokens += ids
        weights += weight
        if len(tokens) >= count:
            break
    np.savez(work / f"shard-{seed}.npz", tokens=np.array(tokens, np.uint16), weight=np.array(weights, np.uint8))


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    if sys.argv[1] == "vocab":
        train_vocabulary(folder)
    else:
        write_shard(folder, int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]) if len(sys.argv) > 5 else 0.0)
