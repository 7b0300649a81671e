"""Every error is one harmless sentence and a documented exit code."""

import errno
from pathlib import Path

import pytest

from app import config
from app import errors as app_errors
from app.config import ConfigError
from app.errors import BadInput, Cancelled, NoModel, NothingToDo, OtherModel, TooLong
from app.sentences import EXIT_CODES, exit_code, harmless, sentence
from engine import errors as engine_errors
from snapshots import errors as store_errors


def every_error():
    path = Path("a\x1b[2Jb.gguf")
    yield from (
        engine_errors.FileNotReadable(path, "is a directory"),
        engine_errors.NotGGUF(path),
        engine_errors.BadGGUF(path, "tensors", "too many"),
        engine_errors.UnsupportedArchitecture("gpt\x1b]0;x\x07"),
        engine_errors.UnsupportedTensorType("t", "IQ2_XXS"),
        engine_errors.UnsupportedTokenizer("of another\x1b[1m kind"),
        engine_errors.UnsupportedFeature("a mixture of experts"),
        engine_errors.MissingTensor("blk.0.\x07attn_q.weight"),
        engine_errors.BadTensor("token_embd.weight", "has another shape"),
        engine_errors.DamagedWeights(path),
        engine_errors.TemplateError("it takes too many steps"),
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
        store_errors.UnknownConversation("0" * 64),
        store_errors.DamagedNode("0" * 64),
        store_errors.DamagedFile(path, "fails its digest"),
        store_errors.BadNode("role", "unknown: \x1b[5m"),
        store_errors.BadExport("it is cut short"),
        store_errors.JournalGone("the reply was taken over by another window"),
        store_errors.StoreError("disk I/O error", path=path),
        OtherModel("x", ("tensors",), "guide"),
        TooLong(10, 5),
        NoModel(),
        NothingToDo("There is nothing to continue yet."),
        Cancelled(),
        BadInput("ids.json", "is not JSON"),
        ConfigError(path, "threads", "must be a whole number"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
        OSError(errno.ENOSPC, "No space left on device"),
        KeyboardInterrupt(),
        ZeroDivisionError("division by zero"),
    )


def test_every_error_is_among_them():
    told = {type(error) for error in every_error()}
    kinds = {
        kind
        for module in (engine_errors, store_errors, app_errors, config)
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    }
    errors = {kind for kind in kinds if issubclass(kind, Exception)}
    assert errors - told == {engine_errors.EngineError, app_errors.AppError}, "these two are only raised as their kinds"


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
