"""`run`, `eval`, `verify`, `bench` over a real model file, in this process."""

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from app.__main__ import main
from app.libraries import own_library
from snapshots import StoreFull, backups
from snapshots.files import Files

START = "Once upon a time, there was a little girl named"


@pytest.fixture
def call(capsys, stories_path):
    """Runs a command on stories260K; gives exit code, stdout, stderr."""

    def run(command, *arguments):
        capsys.readouterr()
        code = main([command, "-m", str(stories_path), "-t", "1", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def result(call, *arguments):
    code, out, err = call("run", "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


def test_greedy_text_streams_and_the_library_stays_untouched(call):
    code, out, err = call("run", "--raw", "--temp", "0", "-n", "24", START)
    assert (code, err) == (0, "")
    assert out.startswith(" Lily. She loved to play outside in the park.")
    assert own_library(must_exist=True) is None


def test_json_is_the_documented_object(call):
    found = result(call, "--raw", "-s", "4", "-n", "10", START)
    assert list(found) == [
        "text", "tokens", "stop", "prompt_tokens", "reused_tokens", "prefilled_tokens", "restored_from",
        "logits_digest", "rng", "savepoint", "timings",
    ]  # fmt: skip
    assert len(found["tokens"]) == 10
    assert found["stop"] == "length"
    assert found["prompt_tokens"] == found["reused_tokens"] + found["prefilled_tokens"]
    assert found["restored_from"] is None
    assert found["savepoint"] is None
    assert len(found["logits_digest"]) == 64
    assert found["rng"]["position"] == found["prompt_tokens"] + 10
    assert set(found["timings"]) == {
        "load_s", "restore_s", "prefill_s", "decode_s", "save_s", "prefill_tok_s", "decode_tok_s",
        "drafted_tokens", "accepted_tokens",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_text(call):
    one, two = (result(call, "--raw", "-s", "4", "-n", "20", START) for _ in range(2))
    other = result(call, "--raw", "-s", "5", "-n", "20", START)
    assert one["text"] == two["text"]
    assert one["logits_digest"] == two["logits_digest"]
    assert other["text"] != one["text"]


def test_save_then_go_on_with_the_savepoints_own_settings(call):
    whole = result(call, "--raw", "-s", "4", "--temp", "1.3", "-n", "30", START)
    part = result(call, "--raw", "-s", "4", "--temp", "1.3", "-n", "13", "--save", "part", START)
    assert part["savepoint"]["name"] == "part"
    rest = result(call, "--at", "part", "-n", "17")
    assert part["tokens"] + rest["tokens"] == whole["tokens"]
    assert (rest["restored_from"], rest["prefilled_tokens"]) == ("bundle", 0)
    assert rest["logits_digest"] == whole["logits_digest"]
    more = result(call, "--at", "part", "--raw", "-n", "5", " The end.")
    assert more["reused_tokens"] == part["rng"]["position"]


def copies():
    with own_library(must_exist=True) as library:
        return backups.listed(library.data_dir, Files())


def test_a_run_that_saves_makes_the_daily_backup_and_no_second_one(call):
    result(call, "--raw", "-n", "2", "--save", "one", START)
    (copy,) = copies()
    with contextlib.closing(backups.read(copy, Files())) as inside:
        assert inside.execute("SELECT name FROM labels").fetchall() == [("one",)]
    result(call, "--raw", "-n", "2", "--save", "two", START)
    assert copies() == [copy]


def test_a_backup_that_fails_is_told_behind_the_reply_and_changes_nothing_else(call, monkeypatch):
    def full(*_, **__):
        raise StoreFull("no space left", path=Path("backups"))

    monkeypatch.setattr(backups, "back_up", full)
    code, out, err = call("run", "--json", "--raw", "-n", "2", "--save", "one", START)
    assert (code, json.loads(out)["savepoint"]["name"]) == (0, "one")
    assert err.startswith("forkpoint: There is no backup of today: The disk is full")
    assert err.count("\n") == 1


def test_each_run_without_at_is_a_conversation_of_its_own(call):
    one = result(call, "--raw", "-n", "2", "-s", "1", "--save", "one", START)
    two = result(call, "--raw", "-n", "2", "-s", "1", "--save", "two", START)
    assert two["prompt_tokens"] == one["prompt_tokens"]
    assert two["tokens"] == one["tokens"]
    assert two["savepoint"]["id"] != one["savepoint"]["id"]


def test_a_taken_name_is_refused_before_anything_is_computed(call):
    result(call, "--raw", "-n", "2", "--save", "mine", START)
    code, out, _ = call("run", "--raw", "-n", "2", "--save", "mine", START)
    assert (code, out) == (6, "")
    assert call("run", "--raw", "-n", "2", "--save", "mine", "-f", START)[0] == 0
    assert call("run", "-n", "2", "--save", "abcd", START)[0] == 6


def test_stdin_also_beside_a_prompt(call, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(b"a little girl named\n")

        def isatty(self):
            return False

    monkeypatch.setattr(sys, "stdin", Stdin())
    beside = result(call, "--raw", "-n", "1", "Once upon a time, there was", "-")
    assert beside["prompt_tokens"] > 10
    Stdin.buffer = io.BytesIO(START.encode())
    alone = result(call, "--raw", "--temp", "0", "-n", "8", "-")
    assert alone["text"].startswith(" Lily")


def test_a_prompt_that_does_not_fit_is_exit_8(call):
    code, out, err = call("run", "-c", "32", "word " * 100)
    assert (code, out) == (8, "")
    assert "32" in err


def test_a_full_disk_prints_the_text_and_is_exit_9(call, monkeypatch):
    from snapshots import StoreFull

    def full(*_, **__):
        raise StoreFull("no space")

    monkeypatch.setattr("snapshots.Library.add_node", full)
    code, out, err = call("run", "--raw", "--temp", "0", "-n", "8", "--save", "x", START)
    assert code == 9
    assert out.startswith(" Lily")
    assert err == "forkpoint: The disk is full: free some space and try again.\n", "nothing waits in memory for later"
    code, out, _ = call("run", "--json", "--raw", "--temp", "0", "-n", "8", "--save", "x", START)
    assert code == 9
    assert json.loads(out)["text"].startswith(" Lily")


def test_another_model_is_exit_7_and_names_the_field(call, stories_path, tmp_path, capsys):
    result(call, "--raw", "-n", "2", "--save", "here", START)
    raw = bytearray(stories_path.read_bytes())
    raw[-5] ^= 1
    other = tmp_path / "other.gguf"
    other.write_bytes(raw)
    assert main(["run", "-m", str(other), "--at", "here", "-n", "2"]) == 7
    assert "tensors" in capsys.readouterr().err


def test_a_bad_sampler_value_is_exit_2_and_names_the_field(call):
    code, _, err = call("run", "--raw", "--temp", "-1", "-n", "2", START)
    assert code == 2
    assert "temperature" in err


def test_verify_passes_and_finds_a_changed_byte(call, capsys):
    result(call, "--raw", "-n", "20", "--save", "checked", START)
    code, out, _ = call("verify", "checked", "--json")
    found = json.loads(out)
    assert (code, found["pass"]) == (0, True)
    assert found["digests"] == 2
    assert found["kv_tokens"] == found["tokens"]
    import os

    for path in Path(os.environ["FORKPOINT_CACHE_DIR"]).rglob("*.seg"):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 4
        path.write_bytes(raw)
    code, out, _ = call("verify", "checked", "--json")
    assert code == 11
    assert json.loads(out)["difference"]["what"] == "files"


def test_eval_of_nothing_is_one_sentence(call, tmp_path):
    text, ids = tmp_path / "empty.txt", tmp_path / "ids.json"
    text.write_text("")
    ids.write_text("[]")
    for given in ([str(text)], ["--tokens-file", str(ids)]):
        code, out, err = call("eval", *given)
        assert (code, out) == (3, "")
        assert err.strip().endswith("holds nothing to evaluate.")


def test_eval_gives_logits_and_perplexity(call, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(START + " Lily. She loved to play outside in the park.")
    out = tmp_path / "logits.npy"
    code, printed, err = call("eval", str(text), "--logits", str(out), "--json")
    assert code == 0, err
    found = json.loads(printed)
    logits = np.load(out)
    assert logits.shape == (found["tokens"], 512)
    assert logits.dtype == np.float32
    assert 1 < found["perplexity"] < 10
    ids = tmp_path / "ids.json"
    ids.write_text("[1, 403, 407]")
    assert json.loads(call("eval", "--tokens-file", str(ids), "--json")[1])["tokens"] == 3
    ids.write_text("[1, 99999]")
    assert call("eval", "--tokens-file", str(ids))[0] == 3
    ids.write_text("{}")
    assert call("eval", "--tokens-file", str(ids))[0] == 3


def test_quick_bench_has_the_peers_fields(call):
    code, out, _ = call("bench", "--quick", "--json")
    found = json.loads(out)
    assert code == 0
    for field in ("threads", "load_s", "pp512", "tg", "read_gb_s", "ready_s", "fork_us", "peak_rss_bytes"):
        assert found[field] > 0, field
