"""A library that cannot be written: read and talked in, said once, shown on top; what is lost is said at the end."""

import sqlite3

import pytest

from app.config import TuiOptions, directories
from app.libraries import own_library
from app.tui import app
from snapshots import Library, StoreFull
from snapshots.schema import FORMAT
from tests.fake_engine import FakeEngine


@pytest.fixture
def newer():
    """A library that a program of another time would have made of this one's."""
    own_library().close()
    with sqlite3.connect(directories().data / "tree.db") as tree:
        tree.execute(f"PRAGMA user_version={FORMAT + 7}")
    tree.close()


async def test_a_newer_library_is_said_once_and_shown_on_top(stages):
    async with stages(script={"hello": "Good day."}) as stage:
        await stage.send("hello")
    with sqlite3.connect(directories().data / "tree.db") as tree:
        tree.execute(f"PRAGMA user_version={FORMAT + 7}")
    tree.close()
    async with stages(script={"more": "And good night."}) as stage:
        await stage.sees("read-only: nothing is saved", "Good day.")
        await stage.toast("made by a newer forkpoint", "kept only until you leave")
        await stage.send("more")
        await stage.sees("And good night.", "not saved")
        stage.app.clear_notifications()
        await stage.send("more and more")
        assert stage.toasts() == []
        assert stage.chat.unwritten == 4


def test_what_could_not_be_written_is_said_when_the_window_closes(newer, monkeypatch, capsys):
    monkeypatch.setattr(app.ForkpointApp, "run", lambda self: (self.chat.load_model(), self.chat.send("hello")))
    options = TuiOptions(model="fake.gguf")
    assert app.run_tui(options, FakeEngine(script={"hello": "Good day."})) == 10
    said = capsys.readouterr().err
    assert said.startswith(
        "The last 2 messages could not be written and went with this window. The library was made by a"
    )
    assert said.count("\n") == 1


async def test_when_the_disk_has_room_again_everything_is_written_without_a_key(stages, monkeypatch):
    def full(*_, **__):
        raise StoreFull("no space left", path=directories().data / "tree.db")

    async with stages(script={"hello": "Good day."}) as stage:
        with monkeypatch.context() as patch:
            patch.setattr(Library, "add_node", full)
            await stage.send("hello")
            await stage.toast(f"The disk is full and {directories().data} cannot be written", "in memory")
            await stage.sees("not saved")
        await stage.toast("is written to the library now")
        await stage.sees("saved ✓")
        assert stage.chat.unwritten == 0
        assert [m.text for m in stage.chat.transcript()] == ["hello", "Good day."]


async def test_the_same_sentence_is_not_shown_twice_at_a_time(stages):
    async with stages() as stage:
        for words in ("Trouble.", "It is so.", "It is so.", "Trouble."):
            stage.screen.toast(words, "error")
            await stage.pilot.pause()
        assert stage.toasts() == ["Trouble.", "It is so."]


async def test_a_backup_that_fails_says_what_failed(stages, monkeypatch):
    def broken(*_, **__):
        raise StoreFull("no space left", path=directories().data / "backups")

    monkeypatch.setattr("app.tui.watcher.BACKUP_AFTER_S", 0.0)
    monkeypatch.setattr(Library, "back_up", broken)
    async with stages() as stage:
        await stage.toast(
            "There is no backup of today: The disk is full and", f"{directories().data} cannot be written"
        )
