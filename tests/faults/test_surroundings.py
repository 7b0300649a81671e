"""Rows 15, 16 and 17 of the battery: wrong clocks, places that cannot be written, strange things in every path."""

import contextlib
import os
import shutil
import subprocess
import time
import warnings
from pathlib import Path

import pytest
from golden.make_library import build, told

from app.chat import Chat, ChatOptions
from app.events import Notice
from faults.kit import KEY, assert_true, open_library, save, state_files, talk
from faults.report import report
from snapshots import Library, Message, ReplyStart, StoreError, StoreReadOnly
from snapshots.fsck import fsck
from tests.fake_engine import FakeEngine

YEARS = 365 * 86400
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


# ------------------------------------------------------------------------------------------------------ 15: the clock


@pytest.mark.parametrize("skew", [-10 * YEARS, 10 * YEARS, 0])
def test_a_clock_that_jumps_ten_years_has_no_effect(skew, tmp_path, monkeypatch):
    real, jumps = time.time, [0]

    def wrong():
        jumps[0] += 1
        return real() + (skew if jumps[0] % 3 else -skew)

    monkeypatch.setattr("time.time", wrong)
    with open_library(tmp_path) as library:
        first, second = library.new_conversation("first"), library.new_conversation("second")
        _, reply = talk(library, first.id, None, "hello", 70)
        assert [c.title for c in library.conversations()] == ["first", "second"]
        library.set_name("a", reply.id)
        library.set_name("b", reply.id)
        assert [s.name for s in library.savepoints()] == ["b", "a"]
        library.undo(first.id)
        assert [s.name for s in library.savepoints()] == ["a"]
        save(library, library.tokens(reply.id), reply.id)
        journal = library.begin_journal(ReplyStart(first.id, reply.id))
        journal.append([1, 2])
        journal.close()
        library.back_up(now=True)
        library.move_head(second.id, None)
        before = told(library)
    for number, path in enumerate(p for p in tmp_path.rglob("*") if p.is_file()):
        at = real() + (1 if number % 2 else -1) * 10 * YEARS
        os.utime(path, (at, at))
    with open_library(tmp_path) as library:
        assert told(library) == before
        assert library.load_state(KEY, library.tokens(reply.id)).rung == "bundle"
        assert [r.tokens for r in library.dead_replies()] == [(1, 2)]
        assert library.start_position(window="new").conversation_id == second.id
    assert fsck(tmp_path / "data", tmp_path / "cache").problems == []


# ------------------------------------------------------------------------------------ 16: places that cannot be written


@pytest.fixture(params=["read-only mount", "immutable"])
def sealed_off(request, tmp_path):
    """A library in a place where not even root can write."""
    home = tmp_path / "home"
    with open_library(home) as library:
        build(library)
        before = told(library)
    if request.param == "immutable":
        files = [home, *home.rglob("*")]
        on = subprocess.run(["chattr", "+i", *map(str, files)], check=False, capture_output=True)
        if on.returncode:
            subprocess.run(["chattr", "-i", *map(str, files)], check=False, capture_output=True)
            warnings.warn("row 16: this file system knows no chattr +i", stacklevel=1)
            pytest.skip("this file system knows no chattr +i")
        yield home, before
        subprocess.run(["chattr", "-i", *map(str, files)], check=True)
    else:
        subprocess.run(["mount", "--bind", str(home), str(home)], check=True)
        done = subprocess.run(["mount", "-o", "remount,bind,ro", str(home)], check=False, capture_output=True)
        try:
            if done.returncode:
                warnings.warn("row 16: no read-only bind mounts here", stacklevel=1)
                pytest.skip("no read-only bind mounts here")
            yield home, before
        finally:
            subprocess.run(["umount", str(home)], check=True)


@root_only
def test_what_cannot_be_written_can_be_read_and_chatted_on_with_one_warning(sealed_off):
    home, before = sealed_off
    with open_library(home) as library:
        assert library.read_only
        assert told(library) == before
        for state in (s for t in before.values() if "states" in t for each in t["states"].values() for s in each):
            tokens = library.tokens(state[0])
            loaded = library.load_state(state[1], tokens)
            assert loaded.rung == "bundle"
            assert_true(loaded, tokens)
        with pytest.raises(StoreReadOnly):
            library.new_conversation()
        assert not library.back_up(now=True)
    heard = []
    chat = Chat(
        heard.append,
        ChatOptions(limit=4, seed=1),
        engine=FakeEngine(),
        model=Path("fake.gguf"),
        library=open_library(home),
    )
    chat.start()
    chat.load_model()
    for text in ("one", "two", "three"):
        chat.send(text)
    assert [m.text for m in chat.transcript() if m.role == "user"][-3:] == ["one", "two", "three"]
    assert len([e for e in heard if isinstance(e, Notice) and e.severity != "information"]) <= 2
    chat.close()


# -------------------------------------------------------------------------------- 17: strange things in every path role

ROLES = (
    "data/tree.db", "data/tree.db-journal", "data/library.lock", "data/journals", "data/journals/x.journal",
    "data/journals/x.new", "data/locks", "data/locks/x.lock", "data/backups", "data/backups/tree-000001.db",
    "data/tree.new", "data/damaged", "cache/states-1", "cache/states-1/tmp", "cache/states-1/tmp/x.tmp", "segment",
    "final", "segment folder",
)  # fmt: skip
KINDS = ("symlink", "hard link", "fifo", "device", "directory", "dangling")


def put(kind, path, victim):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    if kind == "symlink":
        path.symlink_to(victim)
    elif kind == "hard link":
        os.link(victim, path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, 0o666 | 0o020000, os.makedev(1, 3))  # /dev/null
    elif kind == "dangling":
        path.symlink_to(victim.with_name("made-through-a-link"))
    else:
        path.mkdir()


@root_only
@pytest.mark.parametrize("role", ROLES)
def test_nothing_strange_in_a_path_lets_a_victim_be_changed(role, tmp_path):
    tokens = list(range(70))
    for kind in KINDS:
        home, victim = tmp_path / kind, tmp_path / f"victim of {kind}"
        with open_library(home) as library:
            build(library)
            save(library, tokens)
        names = {p.suffix: p for p in state_files(home)}
        path = {"segment": names[".seg"], "final": names[".fin"], "segment folder": names[".seg"].parent}.get(
            role, home / role
        )
        if role in ("data/tree.db",):
            shutil.copy(path, victim)
        else:
            victim.write_bytes(b"precious" * 100)
        content, inode = victim.read_bytes(), victim.stat().st_ino
        put(kind, path, victim)
        try:
            with open_library(home) as library:
                chat = library.new_conversation("x")
                node = library.add_node(chat.id, None, Message("user", "x", tuple(tokens)))
                save(library, tokens, node.id)
                assert_true(library.load_state(KEY, tokens), tokens)
                library.begin_journal(ReplyStart(chat.id, node.id)).close()
                library.dead_replies()
                library.back_up(now=True)
        except StoreError:
            pass  # refused in a sentence
        with contextlib.suppress(StoreError):
            fsck(home / "data", home / "cache", repair=True)
        assert victim.read_bytes() == content, kind
        assert victim.stat().st_ino == inode
        assert not victim.with_name("made-through-a-link").exists(), kind
    report(17, role=role, kinds=len(KINDS), changed=0)


def test_a_library_of_another_program_is_not_touched(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tree.db").write_bytes(b"something else entirely" * 9)
    with pytest.raises(StoreError):
        Library.open(tmp_path / "data", tmp_path / "cache")
