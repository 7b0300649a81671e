"""What a savepoint knows of its model: `run --at` and `verify` open it as it was saved."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from app.__main__ import main
from app.config import Config
from app.libraries import own_library
from app.saved_model import SavedModel, how_to_open
from app.savepoints import recompute_s, remember_speed
from engine.fingerprint import key_of
from snapshots import Message, ModelInfo

START = "Once upon a time, there was a little girl named"


@pytest.fixture
def call(capsys):
    """Runs the command line; gives exit code, stdout, stderr."""

    def run(*arguments):
        capsys.readouterr()
        code = main([*arguments, *(() if arguments[0] == "stats" else ("-t", "1"))])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def result(call):
    def run(*arguments):
        code, out, err = call("run", "--json", *arguments)
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture
def fresh(result, stories_path):
    """A run from the start of a story."""
    return lambda *arguments: result("-m", str(stories_path), "--raw", "-s", "4", *arguments, START)


def configure(text):
    folder = Path(os.environ["FORKPOINT_CONFIG_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(text)


def test_a_savepoints_cache_type_is_kept(call, fresh, result):
    whole = fresh("--cache-type", "q8_0", "-n", "24")
    part = fresh("--cache-type", "q8_0", "-n", "12", "--save", "small")
    rest = result("--at", "small", "-n", "12")
    assert part["tokens"] + rest["tokens"] == whole["tokens"]
    assert rest["logits_digest"] == whole["logits_digest"]
    assert rest["restored_from"] == "bundle"
    configure('cache-type = "f16"')
    assert result("--at", "small", "-n", "12")["logits_digest"] == whole["logits_digest"]
    assert call("run", "--at", "small", "-n", "12")[2] == "", "nothing to warn of"


def test_another_cache_type_by_wish_is_said(call, fresh):
    fresh("--cache-type", "q8_0", "-n", "12", "--save", "small")
    code, _, err = call("run", "--at", "small", "--cache-type", "f16", "-n", "2")
    assert code == 0
    assert "another cache type" in err
    assert err.count("\n") == 1


def test_verify_opens_the_cache_type_that_was_saved(call, fresh):
    fresh("--cache-type", "q8_0", "-n", "12", "--save", "small")
    code, out, err = call("verify", "small", "--json")
    assert code == 0, err
    assert json.loads(out)["pass"] is True
    code, _, err = call("verify", "small", "--cache-type", "f16")
    assert code == 7
    assert "--cache-type" in err


def test_a_savepoint_longer_than_the_usual_context_opens(call, fresh, result):
    long = fresh("-c", "1024", "-n", "540", "--save", "long")
    assert long["rng"]["position"] > 512, "the file's own context"
    assert len(result("--at", "long", "-n", "3")["tokens"]) == 3
    assert call("verify", "long")[0] == 0
    configure("context = 256")
    assert len(result("--at", "long", "-n", "3")["tokens"]) == 3


def test_a_savepoint_within_the_usual_context_keeps_it(fresh, result):
    fresh("-n", "12", "--save", "short")
    found = result("--at", "short", "-n", "-1", "--temp", "0.01")
    assert found["rng"]["position"] <= 512


def test_what_is_asked_for_wins_then_the_savepoint_then_the_config_file():
    saved = SavedModel(ModelInfo("s", "p", "m", "nowhere", {}, {}), "q8_0", 100)
    assert how_to_open(saved, None, Config(cache_type="f16")) == ("q8_0", None)
    assert how_to_open(saved, None, Config(context=300), cache_type="f16") == ("f16", 300)
    assert how_to_open(saved, None, Config(context=99), context=50) == ("q8_0", 50)
    assert how_to_open(saved, None, Config(context=99)) == ("q8_0", None)
    assert how_to_open(SavedModel(), None, Config(cache_type="q8_0")) == ("q8_0", None)


def test_verify_hashes_the_weights_again(call, result, stories_path, tmp_path):
    model = tmp_path / "model.gguf"
    shutil.copy(stories_path, model)
    result("-m", str(model), "--raw", "-n", "4", "--save", "here", START)
    memories = Path(os.environ["FORKPOINT_CACHE_DIR"]) / "fingerprints"
    (memory,) = memories.glob("*.json")
    tensors = json.loads(memory.read_text())["tensors"]
    raw = bytearray(model.read_bytes())
    raw[-5] ^= 1
    model.write_bytes(raw)
    stat = model.stat()  # what a file system with coarse times, or a bad disk, does: other bytes, remembered as before
    identity = [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    lie = memories / (key_of({"file": identity})[:32] + ".json")
    lie.write_text(json.dumps({"file": identity, "tensors": tensors}))
    code, out, _ = call("verify", "here", "--json")
    found = json.loads(out)
    assert (code, found["pass"], found["difference"]["what"]) == (11, False, "weights")
    assert found["difference"]["expected"] == tensors


def test_where_nothing_is_stored_verify_does_not_say_pass(call, fresh, monkeypatch):
    fresh("-n", "4", "--save", "here")
    with own_library() as library:
        node = library.resolve("here").node
        chat = library.new_conversation("bare")
        system = library.add_node(chat.id, None, Message("system", "Be kind.", (1, 2)))
        library.set_name("system", system.id)
        chat = library.new_conversation("never saved")
        message = Message("raw", "x", tuple(range(3, 9)), prompt_key=node.prompt_key)
        library.set_name("never", library.add_node(chat.id, None, message, state_key=node.state_key).id)
    code, out, _ = call("verify", "never")
    assert code == 11
    assert out.startswith("NOTHING PROVEN: 6 tokens")

    def opened(*_, **__):
        raise AssertionError("no model made it: there is none to open")

    monkeypatch.setattr("app.local_engine.LocalEngine.open_model", opened)
    code, out, _ = call("verify", "system", "--json")
    assert (code, json.loads(out)["pass"]) == (11, None)


def test_ctrl_c_in_the_prompt_gives_no_digest_of_another_place(call, stories_path, monkeypatch):
    from engine.model import Model

    feed = Model.prefill

    def interrupted(self, session, tokens, *, progress=None, **options):
        return feed(self, session, tokens, progress=lambda *_: signal.raise_signal(signal.SIGINT), **options)

    monkeypatch.setattr(Model, "prefill", interrupted)
    code, out, _ = call("run", "--json", "-m", str(stories_path), "--raw", "-b", "4", START)
    found = json.loads(out)
    assert (code, found["stop"], found["tokens"]) == (130, "cancelled", [])
    assert found["logits_digest"] is None


def test_stats_says_what_evicting_would_cost_before_a_long_prompt_was_ever_timed(call, fresh, stories_path):
    fresh("-n", "12", "--save", "short")
    out = call("stats", "short")[1]
    assert re.search(r"if this were evicted: resume by recomputing \d+ tokens in at most \d+\.\d+ s$", out.strip()), out
    told = json.loads(call("stats", "short", "--json")[1])
    assert told["recompute_s"] > 0
    assert not told["recompute_timed"]
    long = "Once upon a time there was a house. " * 20
    assert call("run", "-m", str(stories_path), "--raw", "-n", "4", "--save", "long", long)[0] == 0
    out = call("stats", "short")[1]
    assert re.search(r"if this were evicted: resume by recomputing \d+ tokens ≈ \d+\.\d+ s$", out.strip()), out
    assert json.loads(call("stats", "short", "--json")[1])["recompute_timed"]


def test_stats_of_a_state_that_others_keep_whole(call, fresh):
    fresh("-n", "12", "-s", "3", "--save", "one")
    fresh("-n", "12", "-s", "3", "--save", "two")
    assert "if this were evicted: resume at once, other savepoints keep the same state" in call("stats", "one")[1]


def test_the_fastest_of_short_prompts_counts_until_a_long_one_was_timed(own_directories):
    with own_library() as library:
        assert recompute_s(library, "key", 10) is None
        remember_speed(library, "key", 10, 1.0)
        remember_speed(library, "key", 10, 5.0)
        assert recompute_s(library, "key", 10) == (1.0, False)
        remember_speed(library, "key", 20, 1.0)
        assert recompute_s(library, "key", 10) == (0.5, False)
        remember_speed(library, "key", 100, 2.0)
        assert recompute_s(library, "key", 100) == (2.0, True)
        remember_speed(library, "key", 10, 0.001)
        assert recompute_s(library, "key", 100) == (2.0, True)
        library.remember_setting("prefill key", "a figure")
        assert recompute_s(library, "key", 10) == (0.5, False)


def test_verify_passes_over_what_another_model_said_and_stands_no_more(call, fresh):
    fresh("-n", "12", "--save", "plain")
    with own_library() as library:
        ours = library.path(library.resolve("plain").node.id)
        chat = library.new_conversation("two models")
        theirs = library.add_node(chat.id, None, Message("user", "hello", (60_000, 60_001), prompt_key="theirs"))
        here = theirs.id
        for node in ours:
            keep = 0 if here == theirs.id else node.keep
            message = Message(node.role, node.text, node.tokens, keep, prompt_key=node.prompt_key)
            here = library.add_node(chat.id, here, message, state_key=node.state_key).id
        library.set_name("mixed", here)
        wrong = Message("assistant", "!", (60_000,), prompt_key=ours[-1].prompt_key)
        library.set_name("wrong", library.add_node(chat.id, here, wrong, state_key=ours[-1].state_key).id)
    code, out, err = call("verify", "mixed")
    assert (code, err) == (0, "")
    assert out.startswith("PASS: 26 tokens")
    code, out, err = call("verify", "wrong")
    assert (code, err) == (11, "")
    assert "expected ids below 512, found 60000" in out
