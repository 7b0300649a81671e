"""A library, chats over the scripted engine and the real store, and the command line called in this process."""

from pathlib import Path

import pytest
from faults.kit import open_library

from app.__main__ import main
from app.chat import Chat, ChatOptions
from app.events import Delta
from tests.fake_engine import FakeEngine

MODEL = Path("fake.gguf")


@pytest.fixture
def call(capsys):
    """Runs the command line; gives exit code, stdout, stderr."""

    def run(*arguments):
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def library(tmp_path):
    """An empty library, open."""
    with open_library(tmp_path) as opened:
        yield opened


class Heard:
    """What a chat emitted; `on` runs a function when an event of a type comes by for the n-th time."""

    def __init__(self):
        self.events, self._actions = [], []

    def __call__(self, event):
        self.events.append(event)
        for kind, left, act in list(self._actions):
            if isinstance(event, kind):
                left[0] -= 1
                if left[0] == 0:
                    act()

    def on(self, kind, nth, act):
        self._actions.append((kind, [nth], act))

    def of(self, kind):
        return [e for e in self.events if isinstance(e, kind)]

    def text(self):
        return "".join(e.text for e in self.of(Delta))


@pytest.fixture
def chats():
    """Makes chats on the test's own library and closes them."""
    made = []

    def make(options=None, engine=None, *, load=True, at=None, **fake):
        heard = Heard()
        options = options or ChatOptions(limit=12, seed=7)
        chat = Chat(heard, options, engine=engine or FakeEngine(**fake), model=MODEL)
        chat.start(at)
        if load:
            chat.load_model()
        chat.heard = heard
        made.append(chat)
        return chat

    yield make
    for chat in made:
        chat.close()
