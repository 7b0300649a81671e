"""The command line: what scripts rely on. Commands that need no model run here, in this process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.chat import Chat, ChatOptions
from app.cli import _COMMANDS, _HELP
from app.sentences import EXIT_CODES
from tests.fake_engine import FakeEngine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def saved():
    """A library with one conversation: intro (turn 1), joke (turn 2), another branch behind intro."""
    script = {"hello": "hi there", "joke": "knock knock", "poem": "roses\nare red\x1b[31m"}
    chat = Chat(lambda event: None, ChatOptions(seed=1), engine=FakeEngine(script=script), model=Path("m.gguf"))
    chat.start()
    chat.load_model()
    chat.send("hello")
    chat.save("intro")
    chat.send("joke")
    chat.save("joke")
    chat.fork("other", "intro")
    chat.send("poem")
    chat.flush()
    ids = {**chat.labels(), "poem": chat.transcript()[-1].node_id}
    chat.close()
    return ids


def test_every_command_is_there_and_explains_itself(call):
    assert set(_COMMANDS) == set(_HELP)
    for command in _COMMANDS:
        code, out, _ = call(command, "--help")
        assert code == 0, command
        assert out.startswith("Usage: forkpoint")


def test_help_lists_every_exit_code(call):
    _, out, _ = call("--help")
    for code, meaning in EXIT_CODES.items():
        assert f"{code:>4}  {meaning[:40]}" in out


def test_help_imports_nothing_heavy():
    heavy = "{'numba', 'numpy', 'textual', 'jinja2', 'sentencepiece', 'sqlite3', 'zstandard'}"
    program = (
        "import sys, contextlib, io\nfrom app.__main__ import main\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['--help'])\n"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_looking_makes_no_files(call, own_directories):
    assert call("list")[:2] == (0, "Nothing is saved yet.\n")
    assert call("tree")[0] == 0
    assert call("stats", "--json")[0] == 0
    assert call("show", "x")[0] == 6
    assert not own_directories.exists()


def test_list(call, saved):
    code, out, _ = call("list", "--json")
    found = json.loads(out)
    assert code == 0
    assert {s["name"]: s["id"] for s in found["savepoints"]} == {k: v for k, v in saved.items() if k != "poem"}
    assert [c["title"] for c in found["conversations"]] == ["hello"]
    assert "intro" in call("list")[1]


def test_tree_shows_where_branches_part(call, saved):
    nodes = json.loads(call("tree", "--json")[1])
    assert [n["id"] for n in nodes if n["parent_id"] == saved["intro"]].__len__() == 2
    out = call("tree")[1]
    assert "├─ " in out
    assert "└─ " in out
    assert "★ intro ★ other" in out
    assert out.count("◀ here") == 1
    assert "\x1b" not in out


def test_show(call, saved):
    nodes = json.loads(call("show", "joke", "--json")[1])
    assert [(n["role"], n["text"]) for n in nodes] == [
        ("user", "hello"),
        ("assistant", "hi there"),
        ("user", "joke"),
        ("assistant", "knock knock"),
    ]
    assert nodes[1]["names"] == ["intro", "other"]
    assert nodes[1]["stop"] == "stop"
    assert nodes[1]["states"][0]["logits_digest"]
    assert len(nodes[-1]["tokens"]) == len("knock knock")
    out = call("show", saved["poem"][:10])[1]
    assert out.endswith("roses\nare red\x1b[31m\n"), "a pipe gets the raw bytes"


def test_show_says_where_a_reply_was_cut_and_went_on(call):
    chat = Chat(
        lambda event: None, ChatOptions(seed=1), engine=FakeEngine(script={"joke": "knock knock"}), model=Path("m.gguf")
    )
    chat.start()
    chat.load_model()
    chat.send("joke")
    chat.save("joke")
    chat.restore("joke@5")
    chat.save("cut")
    chat.continue_reply()
    chat.flush()
    chat.close()
    assert "──── ★ cut · t1 · " in call("show", "HEAD")[1].splitlines()[-2], "a line of its own"
    assert call("show", "joke@5")[1].splitlines()[-1] == "──── joke@5 stands behind 5 of these 11 tokens ────"


def test_rename_delete_undo(call, saved):
    assert call("rename", "joke", "pun")[0] == 0
    code, _, err = call("rename", "pun", "intro")
    assert code == 6
    assert "-f" in err
    assert call("rename", "pun", "intro", "-f")[0] == 0
    code, out, _ = call("delete", saved["poem"], "--json")
    assert (code, json.loads(out)["deleted"]) == (0, 1)
    assert call("show", "poem")[0] == 6
    assert call("undo")[0] == 0
    assert call("show", saved["poem"])[0] == 0


@pytest.mark.parametrize("reference", ["../../etc/passwd", "a\x00b", "\x1b[2J", "x" * 5000, "~3", "@", "quick~99"])
def test_hostile_references_are_one_harmless_line(call, saved, reference):
    code, out, err = call("show", reference)
    assert code == 6
    assert out == ""
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert "\x00" not in err


def test_an_unknown_savepoint_names_the_nearest(call, saved):
    code, _, err = call("show", "intor")
    assert code == 6
    assert "intro" in err


def test_a_missing_file_and_a_file_that_is_not_gguf(call, tmp_path):
    assert call("run", "-m", str(tmp_path / "none.gguf"), "hi")[0] == 3
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"hello" * 100)
    code, out, err = call("run", "-m", str(bad), "hi")
    assert (code, out) == (4, "")
    assert "not a GGUF file" in err
    assert err.count("\n") == 1
    assert call("tokenize", "-m", str(bad), "hi")[0] == 4
    assert call("eval", "-m", str(bad), str(bad))[0] == 4
    assert call("run", "-m", str(tmp_path), "hi")[0] == 3


def test_an_unsupported_architecture_is_named(call, shared_data):
    gpt = shared_data / "vocab" / "ggml-vocab-gpt-2.gguf"
    code, _, err = call("run", "-m", str(gpt), "hi")
    assert code == 5
    assert "gpt2" in err


def test_run_needs_a_prompt_or_a_savepoint(call):
    code, _, err = call("run")
    assert code == 2
    assert "--at" in err
    assert call("run", "--temp", "hot", "x")[0] == 2
    assert call("run", "a", "b")[0] == 2
    assert call("nonsense")[0] == 2


def test_a_bad_config_names_the_field(call, own_directories):
    config = own_directories / "config"
    config.mkdir(parents=True)
    (config / "config.toml").write_text('threads = "many"\n')
    code, _, err = call("run", "hi")
    assert code == 2
    assert "threads" in err
    (config / "config.toml").write_text("colour = 3\n")
    assert "colour" in call("run", "hi")[2]


def test_a_broken_pipe_is_quiet(saved):
    program = f"{sys.executable} -m app show joke --json | head -c 5; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == ""
    assert done.stdout.endswith("0\n")


def test_ctrl_c_is_130_without_a_traceback(monkeypatch, call, saved):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("snapshots.Library.savepoints", interrupted)
    code, _, err = call("list")
    assert code == 130
    assert "Traceback" not in err


def test_tokenize(call, shared_data, monkeypatch):
    model = str(shared_data / "vocab" / "ggml-vocab-llama-spm.gguf")
    with_bos = json.loads(call("tokenize", "-m", model, "Hello <s>")[1])
    plain = json.loads(call("tokenize", "-m", model, "--no-special", "Hello <s>")[1])
    assert with_bos[0] == 1
    assert with_bos.count(1) == 2
    assert 1 not in plain
    environment = {**os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "app", "tokenize", "-m", model, "--no-special", "-"],
        input=b"Hello <s>",
        capture_output=True,
        check=True,
        cwd=ROOT,
        env=environment,
    )
    assert json.loads(done.stdout) == plain


def test_models(call, shared_data):
    rows = json.loads(call("models", str(shared_data), "--json")[1])
    by_name = {r["name"]: r for r in rows}
    assert by_name["stories260K"]["architecture"] == "llama"
    assert by_name["stories260K"]["context_length"] == 512
    assert by_name["stories260K"]["types"] == "F32"


def test_models_tells_what_cannot_be_read_and_gives_its_exit_code(call, tmp_path):
    missing, text = tmp_path / "nosuch.gguf", tmp_path / "text.gguf"
    text.write_text("no model")
    code, out, _ = call("models", str(missing))
    assert (code, "nosuch.gguf cannot be read: no such file" in out) == (3, True)
    assert call("models", str(missing), "--json")[0] == 3
    assert call("models", str(text))[0] == 4
    assert call("models", str(tmp_path))[0] == 0, "what merely lies in a folder is listed"


def test_models_tells_which_file_would_be_refused(call, tmp_path):
    from dataclasses import replace

    from conformance.family_models import FAMILIES, write

    write(tmp_path / "dense.gguf", FAMILIES["qwen2"])
    write(tmp_path / "moe.gguf", replace(FAMILIES["qwen2"], keys={"expert_count": 4}))
    rows = {Path(row["path"]).stem: row for row in json.loads(call("models", str(tmp_path), "--json")[1])}
    assert rows["dense"]["unsupported"] is None
    assert "qwen2.expert_count" in rows["moe"]["unsupported"]
    assert "qwen2.expert_count" in call("models", str(tmp_path))[1]
