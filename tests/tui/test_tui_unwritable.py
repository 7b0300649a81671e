"""A library that cannot be written: read and talked in, said once, shown on top; what is lost is said at the end."""

import sqlite3

import pytest

from app.config import TuiOptions, directories
from app.libraries import own_library
from app.tui import app
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
