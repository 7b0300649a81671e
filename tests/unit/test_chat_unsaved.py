"""What the library cannot take is kept: nothing that was said is lost, and the chat goes on afterwards."""

import time
from threading import Thread

import pytest

from app.chat import ChatOptions
from app.config import directories
from app.errors import NothingToDo
from app.events import Delta, Notice, PositionChanged, ReplyStarted, Saved
from app.libraries import own_library
from snapshots import LibraryDamaged, StoreBusy, StoreError, StoreFull, StoreReadOnly

ERRORS = [StoreFull("no space"), StoreBusy(1.0), StoreReadOnly("a disk"), StoreError("disk I/O error")]


@pytest.fixture
def trouble(monkeypatch):
    """Makes the library of a chat refuse nodes until the function that it gives is called."""

    def begin(chat, error=ERRORS[0]):
        library = type(chat._core.library)
        real = library.add_node

        def refuse(*_, **__):
            raise error

        monkeypatch.setattr(library, "add_node", refuse)
        return lambda: monkeypatch.setattr(library, "add_node", real)

    return begin


def stored(chat):
    library = chat._core.library
    return {t.preview for c in library.conversations() for t in library.tree(c.id, deleted=True)}


def test_a_full_disk_keeps_the_turn_in_memory_and_writes_it_later(chats, trouble):
    chat = chats(script={"one": "uno", "two": "dos"})
    over = trouble(chat)
    chat.send("one")
    assert [m.text for m in chat.transcript()] == ["one", "uno"]
    assert any(n.severity == "error" and "memory" in n.sentence for n in chat.heard.of(Notice))
    over()
    chat.send("two")
    again = chats(load=False)
    assert [m.text for m in again.transcript()] == ["one", "uno", "two", "dos"]


MOVES = {
    "restore": lambda chat: chat.restore("u1"),
    "new": lambda chat: chat.new_conversation(),
    "open": lambda chat: chat.open_conversation(chat.conversations()[0].conversation_id),
    "back": lambda chat: chat.back(),
    "undo": lambda chat: chat.undo(),
    "quickload": lambda chat: chat.quickload(),
    "fork": lambda chat: chat.fork("f", "u1"),
    "delete": lambda chat: chat.delete("u1"),
    "edit an old message": lambda chat: chat.edit(chat.transcript()[0].node_id, "another"),
    "regenerate": lambda chat: chat.regenerate(),
    "edit what is in memory": lambda chat: chat.edit(chat.transcript()[-1].node_id, "better"),
}


@pytest.mark.parametrize("move", MOVES)
def test_text_in_memory_is_written_before_the_chat_goes_anywhere(chats, trouble, move):
    chat = chats()
    chat.send("first")
    chat.save("u1")
    chat.quicksave()
    over = trouble(chat)
    chat.send("second, which matters")
    before = [m.text for m in chat.transcript()]
    with pytest.raises(StoreFull):
        MOVES[move](chat)
    assert [m.text for m in chat.transcript()] == before, "the live chat stays"
    chat.send("third")
    over()
    MOVES[move](chat)
    assert {"second, which matters", "third"} <= stored(chat)
    chat.send("fourth")
    chat.close()
    assert "fourth" in [m.text for m in chats(load=False).transcript()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_whatever_the_library_suffers_from_the_reply_is_kept(chats, trouble, error):
    chat = chats(script={"one": "uno"})
    ends = []

    def begin():
        ends.append(trouble(chat, error))

    chat.heard.on(ReplyStarted, 1, begin)
    chat.send("one")
    assert [m.text for m in chat.transcript()] == ["one", "uno"]
    assert [n.severity for n in chat.heard.of(Notice)] == ["warning" if isinstance(error, StoreReadOnly) else "error"]
    ends[0]()
    assert chat.flush()
    again = chats(load=False)
    assert [m.text for m in again.transcript()] == ["one", "uno"]
    assert not chat._core.library.dead_replies()


def test_a_failing_save_is_one_notice_and_the_chat_goes_on(chats, monkeypatch):
    chat = chats()

    def full(*_, **__):
        raise StoreFull("no space")

    monkeypatch.setattr(type(chat._core.library), "save_state", full)
    chat.send("one")
    chat.send("two")
    chat.flush()
    said = [n for n in chat.heard.of(Notice) if "disk is full" in n.sentence]
    assert len(said) == 1
    assert len(chat.transcript()) == 4


def test_a_cut_that_cannot_be_written_keeps_its_text(chats, trouble):
    chat = chats(script={"one": "uno dos tres"})
    chat.send("one")
    chat.save("whole")
    chat.restore("whole@3")
    over = trouble(chat)
    chat.send("two")
    texts = [m.text for m in chat.transcript()]
    assert texts[:3] == ["one", "uno", "two"]
    tokens = chat._core.place.tokens()
    over()
    chat.flush()
    assert [m.text for m in chat.transcript()] == texts
    assert chat._core.library.tokens(chat.status().node_id) == tokens


def test_a_new_reply_that_is_stopped_before_it_begins_changes_no_dice(chats, monkeypatch):
    chat = chats(ChatOptions(limit=20), prefill_s=0.0)
    chat.send("hello")
    chat.save("here")
    dice, settings = chat.dice_key, chat.settings
    real = chat._core.bench.reach

    def stopped(*given, **named):
        chat.stop()
        return real(*given, **{**named, "cancel": lambda: True})

    monkeypatch.setattr(chat._core.bench, "reach", stopped)
    chat.change_settings(temperature=0.7)
    settings = chat.settings
    chat._core.bench.session = None
    chat.regenerate()
    monkeypatch.setattr(chat._core.bench, "reach", real)
    assert chat.heard.of(PositionChanged)
    assert (chat.dice_key, chat.settings) == (dice, settings)
    chat.change_settings(temperature=0.8)
    chat.continue_reply()
    live = chat.last_reply.tokens
    chat.restore("here")
    chat.continue_reply()
    assert chat.last_reply.tokens == live


def test_nothing_to_regenerate_changes_nothing(chats):
    chat = chats()
    with pytest.raises(NothingToDo):
        chat.regenerate()


def test_what_waits_in_memory_is_written_as_soon_as_the_library_takes_it_and_said(chats, trouble):
    chat = chats()
    for _ in range(2):
        over = trouble(chat)
        chat.send("hello")
        chat.catch_up()
        assert chat.unwritten == 2
        over()
        chat.catch_up()
        assert chat.unwritten == 0
    assert [n.sentence.partition(":")[0] for n in chat.heard.of(Notice)] == [
        "The disk is full",
        "What was kept in memory is written to the library now.",
    ] * 2, "trouble that came back is said again"
    assert chat.flush(5)
    assert chat.heard.of(Saved)[-1].node_id == chat.status().node_id, "its state, too"


def test_nobody_catches_up_in_the_middle_of_a_reply(chats, trouble):
    chat = chats(script={"one": "uno dos tres"})
    over = trouble(chat)
    counts = []

    def in_mid_reply():
        over()
        other = Thread(target=chat.catch_up)
        other.start()
        other.join(10)
        counts.append(chat.unwritten)

    chat.heard.on(ReplyStarted, 1, in_mid_reply)
    chat.send("one")
    assert counts == [1]
    assert chat.unwritten == 0


@pytest.mark.parametrize("save", [lambda chat: chat.quicksave(), lambda chat: chat.save("here")], ids=["F5", "name"])
def test_a_save_in_mid_reply_that_the_library_cannot_take_says_why_and_the_reply_goes_on(chats, trouble, save):
    chat = chats(script={"one": "uno dos tres"})
    errors = []

    def in_mid_reply():
        over.append(trouble(chat))

        def ask():
            try:
                save(chat)
            except StoreError as error:
                errors.append(error)

        asking.append(Thread(target=ask))
        asking[0].start()
        while not chat._core.requests and asking[0].is_alive():
            time.sleep(0.001)

    over, asking = [], []
    chat.heard.on(Delta, 1, in_mid_reply)
    chat.send("one")
    asking[0].join(10)
    assert [type(error) for error in errors] == [StoreFull]
    assert "".join(m.text for m in chat.transcript()[1:]) == "uno dos tres"
    over[0]()
    chat.catch_up()
    assert chat.unwritten == 0


def test_an_empty_file_that_a_full_disk_left_is_no_library_and_beside_backups_a_damaged_one():
    data = directories().data
    data.mkdir(parents=True, exist_ok=True)
    (data / "tree.db").touch()
    assert own_library(must_exist=True) is None
    (data / "backups").mkdir()
    (data / "backups" / "tree-000001.db").write_bytes(b"x")
    with pytest.raises(LibraryDamaged):
        own_library(must_exist=True)
