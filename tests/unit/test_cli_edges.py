"""The command line where something around it is not as usual: options, streams, terminals, the config file, places."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import ConfigError, load_config
from app.errors import OtherModel
from app.sentences import exit_code, sentence
from app.terminal import ago
from app.tui.themes import remember_theme
from engine.errors import BadGGUF, FileNotReadable, NotGGUF
from snapshots import (
    BadName,
    JournalGone,
    Library,
    Message,
    NothingToUndo,
    StoreError,
    UnknownConversation,
    UnknownNode,
    UnknownRef,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(own_directories):
    return own_directories / "data"


def keep(data, *texts):
    """A library with these messages, each a conversation of its own, named n0, n1, ...; gives their ids."""
    ids = []
    with Library.open(data, data.parent / "cache") as library:
        for at, text in enumerate(texts):
            chat = library.new_conversation(text)
            ids.append(library.add_node(chat.id, None, Message("user", text)).id)
            library.set_name(f"n{at}", ids[-1])
    return ids


def configure(own_directories, text):
    folder = own_directories / "config"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(text)


def shell(line, **environment):
    program = line.replace("forkpoint", f"{sys.executable} -m app")
    return subprocess.run(
        ["bash", "-c", program],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("command", ["run", "eval", "verify", "bench"])
@pytest.mark.parametrize(("option", "value"), [("-t", "257"), ("-t", "0"), ("-c", "1048577"), ("-c", "0")])
def test_numbers_that_the_engine_cannot_take_are_refused_with_the_range(call, command, option, value):
    code, out, err = call(command, option, value, "x")
    assert (code, out) == (2, "")
    assert "range" in err


@pytest.mark.parametrize(
    "front",
    [["-m", "other.gguf"], ["--no-save"], ["--at", "x"], ["--resume"], ["-t", "2"], ["-c", "64"],
     ["--cache-type", "f16"]],
)  # fmt: skip
def test_options_in_front_of_a_command_are_not_passed_over(call, data, front):
    code, out, err = call(*front, "list")
    assert (code, out) == (2, "")
    assert "behind" in err
    assert max((o for o in front if o.startswith("--")), default="--", key=len) in err
    assert not data.exists()


def test_without_a_terminal_the_screen_says_so(call, data):
    code, out, err = call()
    assert (code, out) == (2, "")
    assert "terminal" in err
    assert "forkpoint run" in err
    assert not data.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("command", ["list", "list --json", "show n0", "export n0 -o -", "tokenize roses"])
def test_output_that_finds_no_room_is_one_sentence_and_its_exit_code(data, command):
    keep(data, "roses")
    done = shell(f"forkpoint {command} >/dev/full", PYTHONUNBUFFERED="")  # as people have it
    assert (done.returncode, done.stderr.count(b"\n")) == (9, 1), done.stderr
    assert b"disk is full" in done.stderr


def test_a_complaint_that_nobody_hears_leaves_the_exit_code(data):
    keep(data, "roses")
    assert shell("forkpoint show nothing 2>/dev/full", PYTHONUNBUFFERED="").returncode == 6
    assert shell("forkpoint show nothing 2>&1 | true; exit ${PIPESTATUS[0]}").returncode == 6


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", ">&- <&- 2>&-"])
def test_a_closed_stream_is_no_error_and_no_file_of_ours(data, closed):
    keep(data, "tides")
    before = (data / "tree.db").read_bytes()
    done = shell(f"forkpoint list {closed}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (data / "tree.db").read_bytes() == before


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_what_an_encoding_lacks_becomes_a_question_mark(data, encoding):
    keep(data, "日本 tides ❯")
    for command in ("show n0", "list", "tree"):
        done = shell(f"forkpoint {command}", PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, b""), command
        assert b"?? tides" in done.stdout


# ---- the config file


@pytest.mark.parametrize(
    ("text", "field"),
    [("threads = 257", "threads"), ("context = 1048577", "context"), ("[sampler]\nmin_p = -1", "sampler.min_p"),
     ("[sampler]\nheat = 1", "sampler.heat"), ('[sampler]\ntop_k = "many"', "sampler.top_k")],
)  # fmt: skip
def test_a_setting_out_of_range_is_named_before_anything_starts(call, own_directories, text, field):
    configure(own_directories, text)
    code, out, err = call("run", "hi")
    assert (code, out) == (2, "")
    assert f"“{field}”" in err


def test_the_largest_values_are_taken(own_directories):
    configure(own_directories, "threads = 256\ncontext = 1048576\n[sampler]\ntemperature = 0.5\nstop = ['x']\n")
    assert load_config().sampler == {"temperature": 0.5, "stop": ["x"]}


def test_a_directory_as_config_file_is_said_in_words(own_directories):
    (own_directories / "config" / "config.toml").mkdir(parents=True)
    with pytest.raises(ConfigError) as wrong:
        load_config()
    assert "Errno" not in sentence(wrong.value)
    assert "is a directory" in sentence(wrong.value)


@pytest.mark.parametrize("command", [["run", "hi"], ["tokenize", "hi"], ["eval", "x"]])
def test_a_model_of_the_config_file_that_is_gone_is_said(call, own_directories, command, tmp_path):
    (tmp_path / "x").write_text("text")
    configure(own_directories, 'model = "gone.gguf"')
    code, out, err = call(*[str(tmp_path / "x") if word == "x" else word for word in command])
    assert (code, out) == (2, "")
    assert "gone.gguf" in err


def test_asking_for_a_model_passes_over_the_config_file_s(call, own_directories, stories_path):
    configure(own_directories, 'model = "gone.gguf"')
    assert call("run", "-m", str(stories_path), "-t", "1", "-n", "1", "--raw", "hi")[0] == 0


def test_help_says_which_model_is_taken(call):
    assert "last used" in " ".join(call("run", "--help")[1].split())
    for command in ("eval", "tokenize", "bench"):
        words = " ".join(call(command, "--help")[1].split())
        assert "config file's or the bundled one" in words
        assert "last used" not in words


def test_the_screen_needs_stderr_too_which_it_is_painted_on(own_directories):
    here, there = os.openpty()
    try:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "app"]
        done = subprocess.run(
            command, stdin=there, stdout=there, stderr=subprocess.PIPE, env=environment, timeout=60, text=True
        )
    finally:
        os.close(here)
        os.close(there)
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


# ---- sentences


@pytest.mark.parametrize(
    "error",
    [FileNotReadable(Path("f.gguf"), "is a directory"), NotGGUF(Path("f.gguf")), BadGGUF(Path("f.gguf"), "a", "b")],
)
def test_a_sentence_spells_a_file_as_it_is(error):
    assert sentence(error).startswith("f.gguf")


@pytest.mark.parametrize("error", [BadName("q" * 65536, "is longer than 100 characters"), UnknownRef("q" * 65536)])
def test_a_sentence_about_a_huge_name_stays_short(error):
    assert "qqq…”" in sentence(error)
    assert len(sentence(error)) < 250


def test_several_fields_differ():
    assert "hyperparameters, tensors differ;" in sentence(OtherModel("x", ("hyperparameters", "tensors"), "guide"))


def test_a_config_file_that_is_no_text_is_said_in_words(own_directories):
    (own_directories / "config").mkdir(parents=True, exist_ok=True)
    (own_directories / "config" / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config()


@pytest.mark.parametrize("error", [UnknownNode("ab12" * 16), UnknownConversation("ab12" * 16)])
def test_an_unknown_place_is_named(error):
    assert "ab12ab12ab12" in sentence(error)


def test_errors_of_the_store_have_their_code():
    assert exit_code(StoreError("disk I/O error")) == 10
    assert exit_code(NothingToUndo()) == exit_code(JournalGone("x")) == 1


# ---- places


def is_directory(path):
    path.mkdir()


def is_pipe(path):
    os.mkfifo(path)


def is_link(path):
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("make", [is_directory, is_pipe, is_link])
def test_a_library_that_is_no_plain_file_is_named(call, data, make):
    data.mkdir(parents=True)
    make(data / "tree.db")
    code, out, err = call("list")
    assert (code, out) == (10, "")
    assert str(data / "tree.db") in err
    assert "went wrong" not in err


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_file_in_the_place_of_the_data_directory_is_named(call, monkeypatch, tmp_path, below):
    place = tmp_path / "file"
    place.write_text("")
    monkeypatch.setenv("FORKPOINT_DATA_DIR", str(place / below))
    code, out, err = call("list")
    assert (code, out) == (10, "")
    assert str(place) in err


def test_a_cache_that_cannot_be_is_no_error(call, monkeypatch, stories_path):
    monkeypatch.setenv("FORKPOINT_CACHE_DIR", "/dev/null/x")
    code, _, err = call("run", "-m", str(stories_path), "-t", "1", "-n", "2", "--raw", "hi")
    assert (code, err) == (0, "")


# ---- damage


@pytest.fixture
def damaged(data):
    """Three named conversations; a byte of the second one's text is another one, as a bad disk has it."""
    ids = keep(data, "tides of the sea", "moons", "stars")
    raw = (data / "tree.db").read_bytes()
    (data / "tree.db").write_bytes(raw.replace(b"moons", b"mo\xffns"))
    return ids


def test_one_damaged_message_hides_no_list(call, damaged):
    for command in (["list"], ["list", "--json"], ["tree", "n1"], ["tree", "n0"], ["show", "n0"]):
        code, out, err = call(*command)
        assert (code, err) == (0, ""), command
        assert "tides" in out or "(damaged)" in out
    code, _, err = call("show", "n1")
    assert code == 10
    assert f"forkpoint delete {damaged[1][:12]}" in err


def test_a_damaged_message_can_be_renamed_and_deleted(call, damaged):
    assert call("rename", "n1", "broken")[0] == 0
    assert call("rename", damaged[1][:12], "broken too")[0] == 0
    assert call("delete", damaged[1][:12])[0] == 0
    assert call("show", "broken")[0] == 6
    assert "broken" not in call("list")[1]
    assert call("undo")[0] == 0
    assert "broken" in call("list")[1]
    assert call("delete", "broken")[0] == 0


# ---- incognito


def test_a_killed_incognito_process_leaves_no_text_on_any_disk(tmp_path):
    shared_memory = Path("/dev/shm")
    before = set(shared_memory.glob("forkpoint-*")) if shared_memory.is_dir() else set()
    program = (
        "import os, signal\nfrom app.libraries import memory_library\nfrom snapshots import Message\n"
        "library = memory_library()\nchat = library.new_conversation('t')\n"
        "for i in range(500): library.add_node(chat.id, None, Message('user', f'my secret {i} ' * 99))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    after = set(shared_memory.glob("forkpoint-*")) if shared_memory.is_dir() else set()
    left = [p for root in (*(after - before), tmp_path) for p in root.rglob("*") if p.is_file()]
    assert not [p for p in left if b"my secret" in p.read_bytes()]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ref", "why"),
    [
        ("", "a name, the start of an id, `quick` or `HEAD` is needed"),
        ("~huge", "in front of ~ stands a name, the start of an id, `quick` or `HEAD`"),
        ("@5", "in front of @ stands a name, the start of an id, `quick` or `HEAD`"),
        ("n0~99999999999", "behind ~ stands a number of at most nine digits"),
        ("n0@x", "behind @ stands a number of at most nine digits; the nearest are n0"),
        ("n0~1@", "behind ~ stands a number of at most nine digits; the nearest are n0"),
        ("abc", "the start of an id has four digits at least"),
        ("quick", "nothing was saved with F5 in this conversation"),
    ],
)
@pytest.mark.parametrize("command", ["show", "tree", "stats", "pin", "delete", "export", "verify"])
def test_a_reference_of_a_wrong_form_says_what_its_form_is(call, data, command, ref, why):
    keep(data, "one")
    code, out, err = call(command, ref)
    assert (code, out, err) == (6, "", f"forkpoint: There is no savepoint “{ref}”: {why}.\n")


def test_where_nothing_is_saved_the_commands_that_look_say_so_and_those_that_need_it_fail(call):
    for command in (["list"], ["tree"], ["stats"], ["gc"], ["fsck"], ["find", "x"]):
        assert call(*command)[0] == 0
        assert call(*command, "--json")[0] == 0
    assert call("gc")[1] == call("fsck")[1] == "There is no library yet.\n"
    for looking in (["list"], ["tree"], ["find", "x"], ["stats"]):
        assert call(*looking)[1].startswith("Nothing is saved yet.\n")
    assert call("gc", "--json")[1] == '{"files": 0, "size_bytes": 0, "evicted": null}\n'
    assert call("undo") == (1, "", "forkpoint: There is nothing to undo.\n")
    assert [call(c, "x")[0] for c in ("show", "stats", "pin", "delete", "export", "verify")] == [6] * 6


def test_a_savepoint_that_another_process_forgets_meanwhile_is_left_out_of_the_list(call, data, monkeypatch):
    one, _ = keep(data, "one", "two")
    real = Library.savepoints

    def savepoints(self):
        found = real(self)
        with Library.open(data, data.parent / "cache") as other:
            other.delete_forever(one)
        return found

    monkeypatch.setattr(Library, "savepoints", savepoints)
    code, out, err = call("list", "--json")
    assert (code, err, [s["name"] for s in json.loads(out)["savepoints"]]) == (0, "", ["n1"])


def test_one_is_one_and_two_are_several(call, data):
    keep(data, "one", "two")
    assert call("fsck")[1] == "2 messages, 0 journals, 0 state files: whole.\n"
    assert call("delete", "n0")[1] == "Deleted 1 message; `forkpoint undo` brings it back.\n"
    assert call("delete", "n1", "--forever")[1].startswith("Forgot 1 message and 0 files of states.")
    assert call("fsck")[1] == "1 message, 0 journals, 0 state files: whole.\n"


def test_a_savepoint_and_itself_do_not_part(call, data):
    (node_id,) = keep(data, "one")
    assert call("diff", "n0", node_id)[1] == f"n0 and {node_id} are the same place: {node_id[:8]} (t1), 0 tokens.\n"


def test_an_empty_name_is_called_so(call, data):
    keep(data, "one")
    assert call("rename", "n0", "") == (6, "", "forkpoint: The name is empty.\n")
    assert call("export", "n0", "-o", "") == (2, "", "forkpoint: -o needs the name of a file, or '-' for stdout.\n")


def test_logits_that_have_nowhere_to_go_are_said_before_anything_is_computed(call, tmp_path, monkeypatch):
    monkeypatch.setattr("app.local_engine.LocalEngine.open_model", None)
    (tmp_path / "text").write_text("hello")
    code, _, err = call("eval", str(tmp_path / "text"), "--logits", str(tmp_path / "no" / "x.npy"))
    assert (code, err) == (3, f"forkpoint: {tmp_path / 'no' / 'x.npy'}: no such file or directory.\n")


def test_a_folder_without_models_is_said(call, tmp_path):
    code, out, _ = call("models", str(tmp_path))
    assert code == 3
    assert f"{tmp_path}: holds no GGUF file." in out


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [(-400 * 86400, "400 days ago"), (-(57 * 365.25) * 86400, "57 years ago"), (1000, "in the future")],
)
def test_ages_are_said_in_words_whatever_the_clock_says(monkeypatch, ahead_s, said):
    monkeypatch.setattr("time.time", lambda: 4102444800.0)
    assert ago(4102444800.0 + ahead_s) == said


@pytest.mark.parametrize("which", ["cache", "config"])
def test_the_roots_are_for_their_owner_alone(call, own_directories, stories_path, monkeypatch, which):
    root = own_directories / "new" / which
    monkeypatch.setenv(f"FORKPOINT_{which.upper()}_DIR", str(root))
    assert call("run", "-m", str(stories_path), "--raw", "-n", "1", "hello")[0] == 0
    remember_theme("forkpoint")
    assert root.stat().st_mode & 0o777 == 0o700
