"""The parts under the chat: stop strings, the ladder of restores, sentences, configuration."""

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Config, ConfigError, directories, load_config
from app.errors import BadInput, Cancelled, OtherModel, TooLong
from app.generation import StopStrings
from app.savepoints import Reacher, StateWriter, common_length
from app.sentences import EXIT_CODES, exit_code, harmless, sentence
from engine import errors as engine_errors
from snapshots import errors as store_errors
from tests.fake_engine import FakeEngine, FakeModel

# ---- stop strings


@given(st.text("abEND", max_size=30), st.lists(st.integers(1, 3), min_size=1, max_size=30))
def test_stop_strings_cut_the_same_wherever_the_text_is_split(text, sizes):
    stops = StopStrings(["END", "ba"])
    shown, ended, at = "", False, 0
    while at < len(text) and not ended:
        size = sizes[at % len(sizes)]
        part, ended = stops.push(text[at : at + size])
        shown += part
        at += size
    shown += stops.release()
    first = min((i for i in (text.find("END"), text.find("ba")) if i >= 0), default=len(text))
    assert shown == text[:first]
    assert ended == (first < len(text))


def test_a_stop_string_over_a_save_is_still_found_and_nothing_is_shown_twice():
    stops = StopStrings(["END"])
    assert stops.push("abcE") == ("abc", False)
    assert stops.release() == "E"
    assert stops.push("N") == ("", False)
    assert stops.release() == "N"
    assert stops.push("Dx") == ("", True)
    stops = StopStrings(["END"])
    stops.push("E")
    stops.release()
    assert stops.push("xy") == ("xy", False)


# ---- the ladder


def save(library, model, session):
    heard = []
    writer = StateWriter(library, heard.append)
    node = library.add_node(library.new_conversation().id, None, _message(session.tokens))
    writer.save(node.id, model, session)
    writer.close()
    return node, heard


def _message(tokens):
    from snapshots import Message

    return Message("user", "x", tuple(tokens))


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), max_size=8))
def test_common_length(a, b):
    n = common_length(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 127, 128, 129, 200])
def test_every_rung_gives_the_same_state(library, n):
    model, engine = FakeModel("m"), FakeEngine()
    tokens = list(np.random.default_rng(n).integers(0, 256, n))
    tokens = [int(t) for t in tokens]
    session = model.new_session(b"d" * 16)
    model.prefill(session, tokens)
    reacher = Reacher(engine, model, library)
    fresh = reacher.reach(tokens, None, b"")
    assert fresh.rung == ("recomputed" if n else "bundle")
    if not n:
        return
    save(library, model, session)
    digest = session.logits_digest()
    whole = reacher.reach(tokens, None, b"", expected_digest=digest)
    assert (whole.rung, whole.prefilled, whole.bit_exact) == ("bundle", 0, True)
    longer = reacher.reach([*tokens, 5], None, b"")
    assert longer.session.tokens == [*tokens, 5]
    assert longer.reused in {0, n}  # a few tokens are not worth reading files for
    for path in (library.cache_dir).rglob("*.fin"):
        path.unlink()
    partial = reacher.reach(tokens, None, b"", expected_digest=digest)
    assert partial.bit_exact is True
    assert partial.prefilled == 1
    assert partial.session.logits_digest() == digest


def test_live_tokens_are_not_computed_again_and_stay_untouched(library):
    model, engine = FakeModel("m"), FakeEngine()
    live = model.new_session()
    model.prefill(live, list(range(100)))
    reached = Reacher(engine, model, library).reach([*range(90), 200], live, b"k")
    assert (reached.reused, reached.prefilled) == (90, 1)
    assert live.tokens == list(range(100))
    assert reached.session.dice_key == b"k"


def test_a_state_that_lies_is_computed_again(library):
    model, engine = FakeModel("m"), FakeEngine()
    session = model.new_session()
    model.prefill(session, list(range(80)))
    right = session.logits_digest()
    session.logits = session.logits + 1  # what a bug in a store could hand back
    save(library, model, session)
    reached = Reacher(engine, model, library).reach(list(range(80)), None, b"", expected_digest=right)
    assert (reached.rung, reached.bit_exact) == ("recomputed", True)
    assert reached.session.logits_digest() == right


def test_a_cancelled_prefill_hands_over_what_it_has(library):
    model, engine = FakeModel("m"), FakeEngine()
    kept, calls = [], []
    with pytest.raises(Cancelled):
        Reacher(engine, model, library, batch_size=10).reach(
            list(range(50)), None, b"", cancel=lambda: calls.append(1) or len(calls) > 3, keep_partial=kept.append
        )
    assert kept[0].position == 30


# ---- sentences


def every_error():
    path = Path("a\x1b[2Jb.gguf")
    yield from (
        engine_errors.FileNotReadable(path, "is a directory"),
        engine_errors.NotGGUF(path),
        engine_errors.BadGGUF(path, "tensors", "too many"),
        engine_errors.UnsupportedArchitecture("gpt\x1b]0;x\x07"),
        engine_errors.UnsupportedTensorType("t", "IQ2_XXS"),
        engine_errors.ContextFull(10, 5, 12),
        engine_errors.NonFiniteLogits(3),
        engine_errors.StateMismatch("kv_type", "f16", "q8_0"),
        engine_errors.SamplerError("temperature", -1, "must not be negative"),
        store_errors.StoreFull("no space"),
        store_errors.StoreBusy(5.0),
        store_errors.StoreReadOnly("disk"),
        store_errors.LibraryIsNewer(9, 1),
        store_errors.LibraryDamaged("not a database"),
        store_errors.UnknownRef("x\x1b[1m\n", ("near",)),
        store_errors.AmbiguousRef("ab", ("abc", "abd")),
        store_errors.BadName("dead", "is four hex digits"),
        store_errors.NameTaken("x", "0" * 64),
        store_errors.UnknownName("x", ("y",)),
        store_errors.NothingToUndo(),
        store_errors.UnknownNode("0" * 64),
        OtherModel("x", ("tensors",), "guide"),
        TooLong(10, 5),
        BadInput("ids.json", "is not JSON"),
        ConfigError(path, "threads", "must be a whole number"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
        OSError(errno.ENOSPC, "No space left on device"),
        KeyboardInterrupt(),
        ZeroDivisionError("division by zero"),
    )


@pytest.mark.parametrize("error", list(every_error()), ids=lambda e: type(e).__name__)
def test_every_error_is_one_harmless_sentence_with_a_documented_code(error):
    text = sentence(error)
    assert text
    assert text.isprintable(), repr(text)
    assert text.endswith((".", "!"))
    assert exit_code(error) in EXIT_CODES
    assert exit_code(error) != 0


def test_codes_of_the_documented_errors():
    codes = {type(e).__name__: exit_code(e) for e in every_error()}
    assert codes["NotGGUF"] == 4
    assert codes["UnsupportedTensorType"] == 5
    assert codes["UnknownRef"] == 6
    assert codes["OtherModel"] == 7
    assert codes["TooLong"] == codes["ContextFull"] == 8
    assert codes["StoreFull"] == 9
    assert codes["KeyboardInterrupt"] == 130
    assert "tensors" in sentence(OtherModel("x", ("tensors",), "guide"))


@pytest.mark.parametrize("text", ["\x1b[31m", "\x9b0m", "a\rb", "\u202e", "\x07", "\ud800", "\x7f"])
def test_harmless_leaves_nothing_that_a_terminal_obeys(text):
    assert not any(c in harmless(text) for c in text if c not in "abm[0123")
    assert harmless("tab\t, new\nline, é, 日本, 👩‍🚀") == "tab\t, new\nline, é, 日本, 👩‍🚀"


# ---- configuration


def test_environment_overrides_the_places(monkeypatch, tmp_path):
    monkeypatch.setenv("FORKPOINT_CACHE_DIR", str(tmp_path / "c"))
    monkeypatch.delenv("FORKPOINT_DATA_DIR")
    assert directories().cache == tmp_path / "c"
    assert directories().data.name == "forkpoint"


def test_a_whole_config_file(tmp_path):
    (tmp_path / "config.toml").write_text(
        'model = "m.gguf"\nthreads = 3\ncache-type = "q8_0"\ntheme = "nord"\n[sampler]\ntemperature = 0.5\n'
    )
    config = load_config(tmp_path)
    assert config == Config(
        model=tmp_path / "m.gguf", threads=3, cache_type="q8_0", theme="nord", sampler={"temperature": 0.5}
    )
    assert load_config(tmp_path / "nowhere") == Config()


@pytest.mark.parametrize(
    ("text", "words"),
    [("cache-type = 3", "“cache-type” must be text in quotes."),
     ("weights-cache = true", "“weights-cache” must be a whole number."),
     ("autosave = 1", "“autosave” must be true or false."), ("sampler = 1", "“sampler” must be a table."),
     ("[sampler]\ntop-k = 1", "“sampler.top-k” is not a setting."), ("x = 1", "prefill-ahead, ")],
)  # fmt: skip
def test_a_bad_config_is_said_in_the_words_of_the_file(tmp_path, text, words):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError) as wrong:
        load_config(tmp_path)
    assert words in sentence(wrong.value)


@pytest.mark.parametrize(
    ("text", "field"),
    [("threads = 0", "threads"), ("threads = true", "threads"), ('cache-type = "f64"', "cache_type"), ("x = 1", "x"),
     ("autosave = 1", "autosave"), ("[[[", None), ("model = 3", "model")],
)  # fmt: skip
def test_a_bad_config_names_the_field(tmp_path, text, field):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError) as wrong:
        load_config(tmp_path)
    assert wrong.value.field == field
