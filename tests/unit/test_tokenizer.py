"""The tokenizer on a vocabulary trained here, against the sentencepiece library itself, and on hand-made ones."""

import io
import random

import gguf
import numpy as np
import pytest
import sentencepiece

from engine.errors import BadGGUF, EngineError, UnsupportedTokenizer
from engine.tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Parse
from tests.unit.vocabularies import corpus, load, write_gguf

TEXT_TYPE = {"is_unknown": UNKNOWN, "is_control": CONTROL, "is_byte": BYTE, "is_unused": 5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(tokenizer, the library's own processor with a dummy prefix, path)."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=made, vocab_size=600, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=True,
        user_defined_symbols=["<mark>"], control_symbols=["<|user|>", "<|end|>"], character_coverage=0.9995,
        minloglevel=2,
    )  # fmt: skip
    library = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    pieces, scores, types = [], [], []
    for token in range(library.get_piece_size()):
        pieces.append(library.id_to_piece(token))
        scores.append(library.get_score(token))
        kind = next((kind for name, kind in TEXT_TYPE.items() if getattr(library, name)(token)), NORMAL)
        types.append(USER_DEFINED if pieces[-1] == "<mark>" else kind)
    path = tmp_path_factory.mktemp("vocab") / "trained.gguf"
    write_gguf(path, pieces, scores, types, bos_token_id=1, eos_token_id=2, unknown_token_id=0, add_bos_token=True)
    return load(path), library, path


def random_texts(count):
    rng = random.Random(3)
    ranges = [(32, 127), (32, 127), (0, 32), (0xA0, 0x250), (0x4E00, 0x4F00), (0x1F600, 0x1F650), (0x10000, 0x10FFFF)]
    words = [*" ".join(corpus()[:50]).split(" "), "▁", "", " ", "  ", "<mark>", "<s>", "<|end|>", "\n", "<0x41>"]
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(12)):
            if rng.random() < 0.5:
                parts.append(rng.choice(words))
            else:
                low, high = rng.choice(ranges)
                parts.append("".join(chr(rng.randrange(low, high)) for _ in range(rng.randrange(1, 8))))
        yield rng.choice((" ", "")).join(parts)


def test_equal_to_the_library_on_random_text(trained):
    tokenizer, library, _ = trained
    checked = 0
    for text in random_texts(2000):
        ids = tokenizer.encode(text, add_bos=False)
        assert tokenizer.decode(ids) == text.replace("▁", " ")
        # Behind a special token in the text llama.cpp puts another space prefix and the library does not.
        if "<mark>" not in text:
            checked += 1
            assert ids == library.encode(text), repr(text)
    assert checked > 1500


def test_special_tokens_are_found_only_when_asked(trained):
    tokenizer, library, _ = trained
    user, end = library.piece_to_id("<|user|>"), library.piece_to_id("<|end|>")
    text = "<|user|>Anna<|end|><s>"
    found = tokenizer.encode(text, parse_special=True)
    assert found == [1, user, *library.encode("Anna"), end, 1]
    plain = tokenizer.encode(text)
    assert not {user, end} & set(plain)
    assert plain.count(1) == 1
    assert tokenizer.decode(plain) == text
    assert tokenizer.decode(found) == "Anna"
    assert tokenizer.decode(found[1:], skip_special=False) == text


def test_user_defined_tokens_are_always_cut_out_but_not_from_guarded_content(trained):
    tokenizer, library, _ = trained
    mark = library.piece_to_id("<mark>")
    assert tokenizer.encode("a<mark>b", add_bos=False).count(mark) == 1
    assert mark in tokenizer.encode_parts([("a<mark>b", Parse.CONTENT)])
    guarded = tokenizer.encode_parts([("a<mark>b", Parse.CONTENT)], guarded=frozenset({"<mark>"}))
    assert mark not in guarded
    assert tokenizer.decode(guarded) == "a<mark>b"


def test_a_special_token_is_never_made_across_parts(trained):
    tokenizer, library, _ = trained
    end = library.piece_to_id("<|end|>")
    joined = tokenizer.encode_parts([("<|", Parse.SPECIAL), ("end|>", Parse.CONTENT)], add_bos=False)
    assert end not in joined
    assert joined == library.encode("<|end|>")


def test_plain_text_is_tokenized_jointly_across_parts(trained):
    tokenizer, library, _ = trained
    parts = [("<|user|>sav", Parse.SPECIAL), ("epoint for", Parse.CONTENT), ("ks<|end|>", Parse.SPECIAL)]
    user, end = library.piece_to_id("<|user|>"), library.piece_to_id("<|end|>")
    assert tokenizer.encode_parts(parts, add_bos=False) == [user, *library.encode("savepoint forks"), end]


def test_continuation_has_neither_bos_nor_space_prefix(trained):
    tokenizer, library, _ = trained
    whole = tokenizer.encode("Anna saves", add_bos=False)
    rest = tokenizer.encode("Anna saves", continuation=True)
    assert whole != rest
    assert library.id_to_piece(rest[0])[0] != "▁"
    assert tokenizer.decode(rest, continuation=True) == "Anna saves"
    assert tokenizer.encode("x", continuation=True, add_bos=True)[0] == 1
    # Behind a special token the prefix comes back.
    behind = tokenizer.encode("<|end|>Anna", continuation=True, parse_special=True)
    assert behind[1:] == library.encode("Anna")


def test_bos_as_the_file_says(trained, tmp_path):
    tokenizer, library, _ = trained
    assert tokenizer.encode("")[:2] == [1]
    assert tokenizer.encode("", add_bos=False) == []
    pieces = [library.id_to_piece(token) for token in range(library.get_piece_size())]
    scores = [library.get_score(token) for token in range(library.get_piece_size())]
    types = [2, 3, 3] + [NORMAL] * (len(pieces) - 3)
    quiet = load(write_gguf(tmp_path / "q.gguf", pieces, scores, types, add_bos_token=False, add_space_prefix=False))
    assert quiet.encode("Anna") == quiet.encode("Anna", continuation=True)
    assert quiet.encode("Anna", add_bos=True)[0] == 1
    assert quiet.digest != tokenizer.digest


def test_text_that_utf8_cannot_carry(trained):
    tokenizer, _, _ = trained
    for text, shown in (("a\ud800b", "a\ufffdb"), ("\ud83d\ude00", "😀"), ("\udfff", "\ufffd"), ("a\0b\0", "a\0b\0")):
        assert tokenizer.decode(tokenizer.encode(text)) == shown
    assert tokenizer.decode(tokenizer.encode("x" * 100_000)) == "x" * 100_000


def test_bytes_of_tokens(trained):
    tokenizer, library, _ = trained
    assert tokenizer.token_bytes(1) == b""
    assert tokenizer.piece(1) == "<s>"
    assert tokenizer.token_bytes(library.piece_to_id("<0x0A>")) == b"\n"
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode("Žofie 🜁", add_bos=False))) == " Žofie 🜁".encode()
    for wrong in (-1, tokenizer.vocabulary_size):
        with pytest.raises(IndexError):
            tokenizer.token_bytes(wrong)


# ---- hand-made vocabularies ----

BASE = ["<unk>", "<s>", "</s>", "a", "b", "c", "▁", "ab", "▁a"]
BASE_TYPES = [UNKNOWN, CONTROL, CONTROL, *[NORMAL] * 6]
BASE_SCORES = [0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0, 1.0, 0.5]


def test_end_of_turn_tokens(tmp_path):
    pieces = [*BASE, "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "done", "<|user|>"]
    types = [*BASE_TYPES, CONTROL, USER_DEFINED, NORMAL, CONTROL, CONTROL]
    scores = [*BASE_SCORES, *[0.0] * 5]
    tokenizer = load(write_gguf(tmp_path / "e.gguf", pieces, scores, types, eot_token_id=12))
    # The text decides, whatever type the file gives; 12 is named by the file.
    assert tokenizer.end_ids == {2, 9, 10, 11, 12}
    assert tokenizer.is_end_of_turn(9)
    assert not tokenizer.is_end_of_turn(13)
    # What steers the chat is no plain text, even where the file says so.
    assert 10 not in tokenizer.encode("a<|eot_id|>")
    assert 10 in tokenizer.encode("a<|eot_id|>", parse_special=True)


def test_ids_outside_the_vocabulary_mean_none(tmp_path):
    path = write_gguf(tmp_path / "n.gguf", BASE, BASE_SCORES, BASE_TYPES, bos_token_id=0xFFFFFFFF, eos_token_id=900)
    tokenizer = load(path)
    assert tokenizer.bos_id is None
    assert tokenizer.eos_id is None
    assert tokenizer.end_ids == {2}  # by its text
    assert tokenizer.encode("ab") == tokenizer.encode("ab", add_bos=True)


def test_vocabulary_with_flaws_still_works(tmp_path):
    """Repeated and empty pieces, a NUL, scores that are no numbers, no byte tokens, two tokens of type UNKNOWN."""
    pieces = [*BASE, "ab", "", "[PAD]", "[PAD]", "\0"]
    types = [*BASE_TYPES, NORMAL, NORMAL, UNKNOWN, 0, NORMAL]
    scores = [*BASE_SCORES, float("nan"), float("inf"), 0.0, 0.0, 0.0]
    tokenizer = load(write_gguf(tmp_path / "f.gguf", pieces, scores, types, add_bos_token=False))
    assert tokenizer.encode("abc") == [6, 7, 5]
    assert tokenizer.encode("aéa") == [8, 0, 3]
    assert tokenizer.decode([8, 4]) == "ab"


def test_a_token_that_is_called_unused_is_used(tmp_path):
    types = [*BASE_TYPES]
    types[BASE.index("ab")] = UNUSED
    tokenizer = load(write_gguf(tmp_path / "u.gguf", BASE, BASE_SCORES, types, add_bos_token=False))
    assert tokenizer.encode("ab") == [6, 7]
    assert tokenizer.decode([6, 7]) == "ab"


def test_no_unknown_token_and_no_scores(tmp_path):
    tokenizer = load(write_gguf(tmp_path / "u.gguf", ["a", "b", "▁", "<s>"], None, [1, 1, 1, 3], bos_token_id=3))
    assert tokenizer.encode("ab") == [3, 2, 0, 1]
    assert max(tokenizer.encode("a?b")) < tokenizer.vocabulary_size


def test_phi_3_special_tokens_swallow_white_space(tmp_path):
    pieces = [*BASE, "<|user|>"]
    types = [*BASE_TYPES, CONTROL]
    scores = [*BASE_SCORES, 0.0]
    one = load(write_gguf(tmp_path / "1.gguf", pieces, scores, types, general_name="Phi-3 mini", add_bos_token=False))
    two = load(write_gguf(tmp_path / "2.gguf", pieces, scores, types, general_name="other", add_bos_token=False))
    assert one.encode("<|user|>  \n ab", parse_special=True) == [9, 6, 7]
    assert one.encode("<s> ab", parse_special=True) == two.encode("<s> ab", parse_special=True)
    assert two.encode("<|user|> ab", parse_special=True) == [9, 6, 6, 7]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda w: (w.add_token_list(BASE), w.add_token_scores([1.0])), "scores"),
        (lambda w: (w.add_token_list(BASE), w.add_token_types([1])), "token_type"),
        (lambda w: w.add_token_scores([1.0]), "tokens"),
        (lambda w: (w.add_token_list(BASE), w.add_uint32("tokenizer.ggml.add_bos_token", 1)), "add_bos_token"),
    ],
)
def test_contradicting_fields(tmp_path, change, field):
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "llama")
    writer.add_tokenizer_model("llama")
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(BadGGUF, match=field) as bad:
        load(tmp_path / "b.gguf")
    assert bad.value.field == f"tokenizer.ggml.{field}"


def test_another_kind_is_named(tmp_path):
    with pytest.raises(UnsupportedTokenizer) as unsupported:
        load(write_gguf(tmp_path / "g.gguf", BASE, None, None, model="t5"))
    assert unsupported.value.name == "t5"


def test_eos_where_the_file_wants_it(tmp_path):
    tokenizer = load(write_gguf(tmp_path / "e.gguf", BASE, BASE_SCORES, BASE_TYPES, add_eos_token=True))
    assert tokenizer.encode("ab") == [1, 6, 7, 2]
    assert tokenizer.encode("ab", add_eos=False) == [1, 6, 7]
    assert tokenizer.encode("ab", add_bos=False) == tokenizer.encode("▁ab", continuation=True) == [6, 7]
    assert tokenizer.encode("ab", continuation=True, add_eos=True) == [7, 2]


def test_digest_covers_what_decides_ids(trained, tmp_path):
    base = load(write_gguf(tmp_path / "0.gguf", BASE, BASE_SCORES, BASE_TYPES)).digest
    assert load(write_gguf(tmp_path / "1.gguf", BASE, BASE_SCORES, BASE_TYPES)).digest == base
    other = np.array(BASE_SCORES)
    other[7] = 0.25
    assert load(write_gguf(tmp_path / "2.gguf", BASE, other.tolist(), BASE_TYPES)).digest != base
    assert load(write_gguf(tmp_path / "3.gguf", [*BASE[:-1], "▁b"], BASE_SCORES, BASE_TYPES)).digest != base
    assert load(write_gguf(tmp_path / "4.gguf", BASE, BASE_SCORES, BASE_TYPES, eos_token_id=1)).digest != base


def test_damaged_vocabularies_give_a_typed_error_or_a_sound_tokenizer(tmp_path, capfd):
    """Letters of the vocabulary's part of a file changed at random; the library must not write to the terminal."""
    bytes_and_letters = [*(f"<0x{b:02X}>" for b in range(256)), *map(chr, range(33, 127))]
    pieces = [*BASE[:3], *bytes_and_letters, "▁", "▁the", "th", "he", "the", "<|user|>", "<|end|>"]
    types = [*BASE_TYPES[:3], *[BYTE] * 256, *[NORMAL] * (len(pieces) - 261), CONTROL, USER_DEFINED]
    scores = [-float(i) for i in range(len(pieces))]
    raw = write_gguf(tmp_path / "a.gguf", pieces, scores, types, bos_token_id=1, eos_token_id=2).read_bytes()
    rng, sound = random.Random(4), 0
    for _ in range(300):
        changed = bytearray(raw)
        for _ in range(rng.choice((1, 3, 40))):
            at = rng.randrange(raw.index(b"tokenizer.ggml.tokens") + 40, len(raw))
            if changed[at] >= 32 or rng.random() < 0.05:
                changed[at] = rng.randrange(256)
        (tmp_path / "b.gguf").write_bytes(changed)
        try:
            tokenizer = load(tmp_path / "b.gguf")
        except EngineError:
            continue
        sound += 1
        ids = tokenizer.encode("the the <|end|> é\0", parse_special=True)
        assert all(0 <= token < tokenizer.vocabulary_size for token in ids)
        assert isinstance(tokenizer.decode(range(tokenizer.vocabulary_size)), str)
    assert 150 < sound < 300
    assert capfd.readouterr().err == ""
