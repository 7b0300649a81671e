"""Random walks over everything a chat can do: whatever happened, the live session holds exactly the path's tokens.

Rules that hold after every step: behind a reply the session's tokens are the path's; its logits are always those of a
model that was fed its tokens and nothing else; another reader of the library finds the same path and tokens; a restart
shows the same transcript; exactly one node of the tree is the live one; a place that was saved holds the settings and
dice in force; whatever was said while the disk was full is in the library when the chat is closed.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from app.chat import Chat, ChatOptions
from app.errors import AppError, NothingToDo
from app.events import Delta
from app.place import UNSAVED
from snapshots import Library, StoreError, StoreFull
from tests.fake_engine import FakeEngine

WORDS = ("hello", "tell me more", "why", "naïve 日本", "x")
KINDS = (
    *(
        "send",
        "send",
        "send",
        "send",
        "send_stopped",
        "send_quick",
        "regenerate",
        "edit",
        "continue",
        "save",
        "restore",
    ),
    *("fork", "inside", "back", "undo", "undo", "redo", "delete", "quicksave", "quickload", "system", "new", "open"),
    *("restart", "purge", "rename", "set", "set", "send_full", "send_full"),
)
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 1000)), min_size=4, max_size=22)


class Walk:
    """One chat and what is done to it."""

    def __init__(self):
        self.events, self.hook = [], lambda event: None
        self.kept = set()  # what was said while the disk was full
        self.open()

    def open(self):
        def emit(event):
            self.events.append(event)
            self.hook(event)

        self.chat = Chat(emit, ChatOptions(limit=6), engine=FakeEngine(context=400), model=Path("m.gguf"))
        self.chat.start()
        self.chat.load_model()

    def nodes(self):
        return [row.node_id for row in self.chat.tree()]

    def pick(self, n):
        nodes = self.nodes()
        return nodes[n % len(nodes)] if nodes else "none"

    def send(self, n):
        self.chat.send(WORDS[n % len(WORDS)])

    def send_stopped(self, n):
        self._after(1 + n % 4, self.chat.stop)
        self.chat.send(WORDS[n % len(WORDS)])

    def send_quick(self, n):
        # What another thread would queue between two tokens.
        core = self.chat._core
        self._after(1 + n % 4, lambda: core.requests.ask(lambda node: core.library.quicksave(node.id)))
        self.chat.send(WORDS[n % len(WORDS)])

    def send_full(self, n):
        library = self.chat._core.library
        real, text = library.add_node, f"kept {len(self.kept)}"

        def full(*_, **__):
            raise StoreFull("no space")

        library.add_node = full
        try:
            self.chat.send(text)
            self.kept.add(text)
            if n % 2:
                with contextlib.suppress(AppError, StoreError):
                    self.chat.restore(self.pick(n))
        finally:
            library.add_node = real

    def set(self, n):
        self.chat.change_settings(temperature=0.5 + n / 1000)

    def _after(self, count, act):
        left = [count]

        def hook(event):
            if isinstance(event, Delta):
                left[0] -= 1
                if left[0] == 0:
                    act()

        self.hook = hook

    def regenerate(self, n):
        self.chat.regenerate()

    def edit(self, n):
        self.chat.edit(self.pick(n), WORDS[n % len(WORDS)] + "!")

    def go_on(self, n):
        self.chat.continue_reply()

    def save(self, n):
        self.chat.save(f"name-{n % 3}", force=bool(n % 2))

    def restore(self, n):
        self.chat.restore(f"name-{n % 3}" if n % 2 else self.pick(n))

    def fork(self, n):
        self.chat.fork(f"fork-{n}", self.pick(n))

    def inside(self, n):
        self.chat.restore(f"{self.pick(n)}@{n % 5}")

    def system(self, n):
        self.chat.set_system(f"be {n % 2}")

    def open_other(self, n):
        rows = self.chat.conversations()
        self.chat.open_conversation(rows[n % len(rows)].conversation_id if rows else "none")

    def restart(self, n):
        before = [(m.node_id, m.text) for m in self.chat.transcript()]
        new = self.chat.status().conversation_id is None
        self.chat.close()
        self.open()
        if not new:
            assert [(m.node_id, m.text) for m in self.chat.transcript()] == before

    def purge(self, n):
        self.chat.flush()
        shutil.rmtree(os.environ["FORKPOINT_CACHE_DIR"], ignore_errors=True)

    def check(self, replied, saved=False):
        core = self.chat._core
        tokens, session = core.place.tokens(), core.bench.session
        if saved:
            assert core.settings.to_json() == core.place.sampler()
            assert core.dice == core.place.dice()
        if session is not None:
            if session.logits is not None:
                assert (session.logits == core.bench.model.logits_of(session.tokens)).all()
            if replied:
                assert list(session.tokens) == tokens
        path = [m.node_id for m in self.chat.transcript()]
        if path and not path[-1].startswith(UNSAVED):
            with Library.open(core.library.data_dir, core.library.cache_dir) as other:
                assert [n.id for n in other.path(path[-1])] == path
                if core.place.cut is None:
                    assert other.tokens(path[-1]) == tokens
            assert sum(row.is_here for row in self.chat.tree()) == 1


SAVES = {"save", "fork", "quicksave"}
REPLY = {"send", "regenerate", "continue"}
METHODS = {"continue": "go_on", "open": "open_other"}
ON_CHAT = {"undo", "redo", "quicksave", "quickload", "back"}


@settings(max_examples=12, phases=(Phase.explicit, Phase.generate))
@given(steps=STEPS)
def test_walks(steps):
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        for kind in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"FORKPOINT_{kind}_DIR", str(Path(root) / kind.lower()))
        walk = Walk()
        try:
            for step, n in steps:
                replied, saved = step in REPLY, step in SAVES
                try:
                    if step == "new":
                        walk.chat.new_conversation()
                    elif step == "delete":
                        walk.chat.delete(walk.pick(n))
                    elif step == "rename":
                        walk.chat.rename(walk.pick(n), f"name-{n % 3}", force=True)
                    elif step in ON_CHAT:
                        getattr(walk.chat, step)()
                    else:
                        getattr(walk, METHODS.get(step, step))(n)
                except (AppError, StoreError):
                    replied = saved = False
                walk.hook = lambda event: None
                walk.check(replied and bool(walk.chat.transcript()) and not walk.chat._core.cancelled(), saved)
        finally:
            walk.chat.close()
        with Library.open(Path(root) / "data", Path(root) / "cache") as after:
            assert walk.kept <= {t.preview for c in after.conversations() for t in after.tree(c.id, deleted=True)}


def test_who_steps_back_too_far_hears_how_far_it_is(chats):
    chat = chats()
    chat.send("one")
    with pytest.raises(NothingToDo, match=r"^There is only 1 turn to step back\.$"):
        chat.back(9)
    chat.send("two")
    with pytest.raises(NothingToDo, match=r"^There are only 2 turns to step back\.$"):
        chat.back(9)
    assert len(chat.transcript()) == 4
