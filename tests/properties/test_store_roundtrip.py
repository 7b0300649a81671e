"""Any token lists, cut into any saves, in any order: what is loaded is the state of exactly those tokens."""

import shutil
import tempfile
from pathlib import Path

from faults.kit import KEY, assert_true, chunk, logits, open_library
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots import BLOCK, ids

MEMORY = Path("/dev/shm")
TOKEN = st.integers(0, 2)
"""Few different ids: so that prefixes are shared often."""


@st.composite
def token_lists(draw):
    """Up to four lists that branch off each other anywhere."""
    lists = [draw(st.lists(TOKEN, max_size=150))]
    for _ in range(draw(st.integers(0, 3))):
        stem = draw(st.sampled_from(lists))
        cut = draw(st.integers(0, len(stem)))
        lists.append(stem[:cut] + draw(st.lists(TOKEN, max_size=70)))
    return lists


@given(lists=token_lists(), data=st.data())
@settings(max_examples=40)
def test_every_prefix_that_is_returned_is_true_whatever_was_saved_before(lists, data):
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    try:
        with open_library(folder) as library:
            saved = []
            for _ in range(data.draw(st.integers(1, 6))):
                tokens = data.draw(st.sampled_from(lists))
                tokens = tokens[: data.draw(st.integers(0, len(tokens)))]
                start, cuts = library.save_from(KEY, tokens), []
                while start < len(tokens):
                    end = min(len(tokens), start - start % BLOCK + BLOCK)
                    stop = data.draw(st.integers(start + 1, end))
                    cuts.append(chunk(tokens, start, stop))
                    start = stop
                out = logits(tokens)
                report = library.save_state(None, KEY, tokens, cuts, logits=out, hidden=out[:8], dice_key=b"dice" * 4)
                assert report.complete
                saved.append(tokens)
            for tokens in [*lists, *saved]:
                state = library.load_state(KEY, tokens)
                assert_true(state, tokens)
                assert library.longest_prefix(KEY, tokens) == state.n_valid
                assert state.damaged == 0
                if tokens in saved:
                    assert state.rung == "bundle"
                whole = (
                    max(len(s) // BLOCK * BLOCK for s in saved if s == tokens[: len(s)])
                    if any(s == tokens[: len(s)] for s in saved)
                    else 0
                )
                assert state.n_valid >= whole
    finally:
        shutil.rmtree(folder)


@given(st.lists(st.one_of(st.integers(0, 70), st.integers(0, (1 << 32) - 1)), max_size=50))
def test_packed_tokens_come_back(tokens):
    blob = ids.pack_tokens(tokens)
    assert ids.unpack_tokens(blob) == tuple(tokens)
    assert len(blob) <= 1 + 4 * len(tokens)


@given(st.text())
def test_clean_text_is_the_text_where_it_can_be_stored(text):
    clean = ids.clean_text(text)
    assert clean == text  # st.text() draws no lone surrogates
    assert clean.encode().decode() == clean
