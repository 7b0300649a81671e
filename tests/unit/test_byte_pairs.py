"""Byte-pair vocabularies: one trained here, against merging written out plainly, and hand-made ones with flaws."""

import itertools
import json

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers, trainers

from engine.detokenizer import StreamDecoder
from engine.errors import BadGGUF, UnsupportedTokenizer
from engine.tokenizer import BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED, Parse
from tests.conformance.random_text import random_texts
from tests.unit.vocabularies import corpus, load, write_gguf

AS_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)  # cuts words as GPT-2 did


def plain_merge(word, ranks):
    """The word's pieces: the pair with the lowest rank is joined, the leftmost first, until no pair has one."""
    pieces = list(word)
    while True:
        pairs = enumerate(itertools.pairwise(pieces))
        found = min(((ranks[pair], at) for at, pair in pairs if pair in ranks), default=None)
        if found is None:
            return pieces
        at = found[1]
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


def plain_encode(text, tokens, merges, whole_words=False):
    """llama.cpp's rule for what is no token: the tokens of its characters that are ASCII, and nothing of the others."""
    ids = {token: index for index, token in enumerate(tokens)}
    ranks = {}
    for rank, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        ranks.setdefault((left, right), rank)
    out = []
    for word, _ in AS_BYTES.pre_tokenize_str(text):
        for piece in [word] if whole_words and word in ids else plain_merge(word, ranks):
            out += [ids[piece]] if piece in ids else [ids[c] for c in piece if c.isascii() and c in ids]
    return out


@pytest.fixture(scope="module")
def trained():
    """Tokens and merges of a vocabulary trained on the corpus."""
    library = Library(models.BPE())
    library.pre_tokenizer = AS_BYTES
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(library.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [" ".join(pair) for pair in model["merges"]]


@pytest.fixture
def make(tmp_path):
    """A tokenizer from tokens and merges; `special` are (text, type) behind them."""

    def made(tokens, merges, special=(), types=None, pre="gpt-2", **fields):
        pieces = [*tokens, *(text for text, _ in special)]
        kinds = [*(types or [NORMAL] * len(tokens)), *(kind for _, kind in special)]
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.gguf"
        return load(write_gguf(path, pieces, None, kinds, model="gpt2", merges=merges, pre=pre, **fields))

    return made


def test_equal_to_merging_written_out_plainly(trained, make):
    tokenizer = make(*trained)
    texts = [*corpus()[:100], *random_texts(400, 2)]
    for text in texts:
        ids = tokenizer.encode(text)
        assert ids == plain_encode(text, *trained), repr(text)
        assert tokenizer.decode(ids) == text


def test_pieces_that_are_no_tokens(trained, make):
    """Merges go through pieces that the vocabulary lacks; other letters without a token vanish."""
    tokens, merges = trained
    without = [token for index, token in enumerate(tokens) if index % 3 and token not in ("e", "Ġ", "Ã")]
    plain = make(without, merges)
    whole = make(without, merges, pre="llama-bpe", add_bos_token=False)
    differs = 0
    for text in [*corpus()[:100], *random_texts(200, 3)]:
        assert plain.encode(text) == plain_encode(text, without, merges), repr(text)
    for text in corpus()[:200]:
        if "'" not in text and not any(c.isdigit() for c in text) and text.isascii():
            words = plain_encode(text, without, merges, whole_words=True)
            assert whole.encode(text) == words
            differs += words != plain_encode(text, without, merges)
    assert max(plain.encode("".join(map(chr, range(0x250))))) < len(without)


def test_a_word_that_is_a_token_is_taken_whole_where_the_pre_tokenizer_says_so(make):
    letters = list("abc")
    for pre, ids in (("llama-bpe", [5]), ("gpt-2", [3, 2])):
        assert make([*letters, "ab", "bc", "abc"], ["a b", "b c"], pre=pre, add_bos_token=False).encode("abc") == ids
    # Also where the merges speak of pieces that are missing; "bcd" is such a piece, and no token.
    flawed = make([*letters, "ab", "d", "abc"], ["a b", "b c", "bc d"], pre="llama-bpe", add_bos_token=False)
    assert flawed.encode("abc") == [5]
    assert flawed.encode("bcd") == [1, 2, 4]
    assert flawed.encode("abcd") == [3, 2, 4]


def test_merges_that_apply_to_nothing_are_left_out(make):
    flaws = ["", " ", "ab", "a  b", "x\u3000 y", "▁ a", " a b", "a b c", "a b"]
    assert make(["a", "b", "c", "ab"], flaws).encode("abc") == [3, 2]
    # Of a merge that appears twice the first counts.
    assert make(["a", "b", "c", "ab", "bc"], ["a b", "b c", "a b"]).encode("abc") == [3, 2]
    assert make(["a", "b"], []).encode("abba") == [0, 1, 1, 0]


def test_merges_make_longer_pieces_than_any_token(make, capfd):
    tokenizer = make(["a", "b", "c"], ["a b", "ab c", "abc abc", "abcabc ab"])
    assert tokenizer.encode("abcabcab") == [0, 1, 2, 0, 1, 2, 0, 1]
    assert capfd.readouterr().err == ""


def test_tokens_with_flaws(make, tmp_path):
    """Empty and repeated texts, and bytes that are no UTF-8: they are no text's token but can be shown."""
    tokenizer = make(["a", "", "b", "a", "", "é"], ["a b"])
    assert tokenizer.encode("ab") == [3, 2]
    assert tokenizer.decode([0, 1, 4]) == "a"
    path = write_gguf(tmp_path / "n.gguf", ["a", "b\x01\x01"], None, None, model="gpt2", merges=["a b"], pre="gpt-2")
    path.write_bytes(path.read_bytes().replace(b"b\x01\x01", b"b\xff\xfe"))
    broken = load(path)
    assert broken.encode("ab") == [0]
    assert broken.token_bytes(1) == b"b\xff\xfe"
    assert broken.decode([0, 1]) == "ab\ufffd\ufffd"


def test_bytes_of_tokens(make):
    special = [("<x y>", USER_DEFINED), ("<0xE2>", BYTE), ("<0xZZ>", BYTE), ("[PAD3]", UNUSED), ("<|end|>", CONTROL)]
    tokenizer = make(["Ġa", "Ċ", "Ã", "©", "▁b", "a b", "ÿ", "\xad", "Ā"], [], special)
    shown = [tokenizer.token_bytes(token) for token in range(tokenizer.vocabulary_size)]
    assert shown[:4] == [b" a", b"\n", b"\xc3", b"\xa9"]
    assert shown[4:6] == ["▁b".encode(), b"a b"]  # characters that stand for no byte stand for themselves
    assert shown[6:9] == [b"\xff", "\xad".encode(), b"\0"]
    assert shown[9:] == [b"<x y>", b"\xe2", b"", b"[PAD3]", b""]
    assert tokenizer.decode([2, 3, 2]) == "é\ufffd"
    assert tokenizer.decode([0, 13], skip_special=False) == " a<|end|>"


def test_text_comes_by_whole_characters(trained, make):
    tokenizer = make(*trained)
    text = "Žofie 😀 李雷 e\u0301 ✓"
    for ids in (tokenizer.encode(text), [trained[0].index(c) for c, _ in _bytes_as_letters(text)]):
        decoder = StreamDecoder(tokenizer)
        parts = [decoder.push(token) for token in ids]
        assert "".join(parts) + decoder.flush() == text
        assert "\ufffd" not in "".join(parts)
    cut = tokenizer.encode("ab😀")[:-1]
    decoder = StreamDecoder(tokenizer)
    assert "".join(map(decoder.push, cut)) + decoder.flush() == tokenizer.decode(cut)


def _bytes_as_letters(text):
    return [
        (letter, byte) for word, _ in AS_BYTES.pre_tokenize_str(text) for letter, byte in zip(word, word, strict=True)
    ]


def test_special_tokens(trained, make):
    special = [("<|user|>", CONTROL), ("<|end|>", CONTROL), ("  ", USER_DEFINED), ("<mark>", USER_DEFINED)]
    tokenizer = make(*trained, special)
    n = len(trained[0])
    text = "<|user|>Anna  saves<mark> the dice<|end|>"
    found = tokenizer.encode(text, parse_special=True)
    assert [token for token in found if token >= n] == [n, n + 2, n + 3, n + 1]
    assert [token for token in tokenizer.encode(text) if token >= n] == [n + 2, n + 3]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(found) == "Anna  saves<mark> the dice"
    assert tokenizer.decode(found, skip_special=False) == text
    content = tokenizer.encode_parts([(text, Parse.CONTENT)], guarded=frozenset({"<mark>"}))
    assert [token for token in content if token >= n] == [n + 2]
    assert tokenizer.end_ids == {n + 1}


def test_bos_and_eos_as_the_file_says(make):
    tokens, special = ["a", "b"], [("<s>", CONTROL), ("</s>", CONTROL)]
    assert make(tokens, [], special, bos_token_id=2, eos_token_id=3).encode("ab") == [0, 1]
    assert make(tokens, [], special, bos_token_id=2, pre="llama-bpe").encode("ab") == [2, 0, 1]
    assert make(tokens, [], special, bos_token_id=2, pre="tekken").encode("ab") == [2, 0, 1]
    assert make(tokens, [], special, bos_token_id=2, pre="llama-bpe", add_bos_token=False).encode("ab") == [0, 1]
    both = make(tokens, [], special, bos_token_id=2, eos_token_id=3, add_bos_token=True, add_eos_token=True)
    assert both.encode("ab") == [2, 0, 1, 3]
    assert both.encode("ab", continuation=True) == both.encode("ab", add_bos=False) == [0, 1]
    # No space prefix, whatever the file says, and none that decoding could drop.
    assert make(tokens, [], special, add_space_prefix=True).decode([0]) == "a"
    # Without fields there is neither, though token 11 would be llama.cpp's guess.
    none = make([chr(97 + i) for i in range(20)], [], pre="llama-bpe")
    assert none.encode("a") == [0]
    assert none.end_ids == frozenset()


def test_what_is_missing_is_named(make):
    with pytest.raises(BadGGUF) as bad:
        make(["a"], None)
    assert bad.value.field == "tokenizer.ggml.merges"
    with pytest.raises(BadGGUF) as bad:
        make(["a"], [1, 2])
    assert bad.value.field == "tokenizer.ggml.merges"
    with pytest.raises(UnsupportedTokenizer) as unsupported:
        make(["a"], [], pre="hoogle-3")
    assert "hoogle-3" in str(unsupported.value)


def test_the_digest_covers_what_decides_ids(trained, make):
    tokens, merges = trained
    base = make(tokens, merges).digest
    assert make(tokens, merges).digest == base
    assert make(tokens, [*merges[1:], merges[0]]).digest != base
    assert make(tokens, merges, pre="qwen2").digest != base
    assert make(tokens, merges, pre="phi-2").digest == base
    assert make(tokens, merges, eos_token_id=5).digest != base


def test_the_command_line_says_it_in_a_sentence(call, tmp_path):
    path = write_gguf(tmp_path / "p.gguf", ["a"], None, None, model="gpt2", merges=[], pre="hoogle-3")
    code, out, err = call("tokenize", "-m", str(path), "a")
    assert (code, out) == (5, "")
    assert "hoogle-3" in err
    path = write_gguf(tmp_path / "m.gguf", ["a"], None, None, model="gpt2", pre="gpt-2")
    code, out, err = call("tokenize", "-m", str(path), "a")
    assert (code, out) == (4, "")
    assert "tokenizer.ggml.merges" in err
    path = write_gguf(tmp_path / "s.gguf", ["a", "<|x|>"], None, [1, 3], model="gpt2", merges=[], pre="llama-bpe",
                      bos_token_id=1)  # fmt: skip
    assert call("tokenize", "-m", str(path), "a<|x|>")[1] == "[1, 0, 1]\n"
    assert call("tokenize", "--no-special", "-m", str(path), "a<|x|>")[1] == "[0]\n"
