"""The streaming detokenizer: whole characters only, and in the end exactly what decoding all at once gives."""

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.detokenizer import StreamDecoder
from engine.gguf import GGUF
from engine.tokenizer import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Tokenizer

WORDS = ["a", "▁", "▁a", "▁▁", "é", "😀", "ab▁c"]
MARK = 3 + 256 + len(WORDS)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *WORDS, "<mark>"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(WORDS), USER_DEFINED]
    path = tmp_path_factory.mktemp("stream") / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_types(types)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with GGUF.open(path) as opened:
        return Tokenizer.from_gguf(opened)


def byte_ids(raw):
    return [3 + value for value in raw]


ids = st.lists(
    st.one_of(
        st.integers(0, MARK),
        st.sampled_from(byte_ids(b"\xf0\x9f\x98\x80\xe2\x82\xac\xc3\xed\xa0\x80\xff ")),
    ),
    max_size=30,
)


@given(ids=ids)
def test_pieces_joined_are_the_whole_decoded(tokenizer, ids):
    for previous, continuation in ((None, True), (1, False)):
        stream = StreamDecoder(tokenizer, previous)
        pieces = [stream.push(token) for token in ids] + [stream.flush()]
        assert "".join(pieces) == tokenizer.decode(ids, continuation=continuation)


@given(text=st.text())
def test_no_character_is_split(tokenizer, text):
    stream = StreamDecoder(tokenizer)
    pieces = [stream.push(token) for token in byte_ids(text.encode("utf-8", "replace"))]
    assert all(len(piece) <= 1 for piece in pieces)
    assert "".join(pieces) == text.encode("utf-8", "replace").decode()
    assert stream.flush() == ""


@given(raw=st.binary(max_size=40))
def test_bytes_that_are_no_utf8_come_out_as_decode_replace_gives_them(tokenizer, raw):
    stream = StreamDecoder(tokenizer)
    pieces = [stream.push(token) for token in byte_ids(raw)]
    assert "".join(pieces) + stream.flush() == raw.decode("utf-8", "replace")


def test_space_behind_a_special_token_is_dropped_once(tokenizer):
    space_a = 3 + 256 + WORDS.index("▁a")
    assert [StreamDecoder(tokenizer, 1).push(space_a), StreamDecoder(tokenizer).push(space_a)] == ["a", " a"]
    stream = StreamDecoder(tokenizer, 1)
    assert [stream.push(token) for token in (space_a, space_a, MARK, space_a, 2)] == ["a", " a", "<mark>", "a", ""]


def test_unfinished_character_waits_and_flush_ends_it(tokenizer):
    stream = StreamDecoder(tokenizer)
    assert [stream.push(token) for token in byte_ids(b"\xf0\x9f\x98")] == ["", "", ""]
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""
    assert stream.push(byte_ids(b"x")[0]) == "x"
    with pytest.raises(IndexError):
        stream.push(MARK + 1)
