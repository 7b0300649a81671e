"""The small parts: the bridge between threads, figures, grouping of nodes, leaving."""

import threading
from types import SimpleNamespace

import pytest

from app.config import TuiOptions
from app.events import Delta, Message, Notice
from app.tui import app as tui_app
from app.tui.bridge import Bridge, ChatEvent, TextReady
from app.tui.figures import Progress, duration, gauge, size
from app.tui.shown import shown
from snapshots import UnknownRef
from tests.fake_engine import FakeEngine


def test_the_bridge_keeps_text_in_front_of_the_event_that_followed_it():
    posted, bridge = [], Bridge()
    bridge.emit(Notice("early"))
    bridge.connect(posted.append)
    for word in ("a", "b", "c"):
        bridge.emit(Delta(word))
    bridge.emit(Notice("after c"))
    bridge.emit(Delta("d"))
    assert [type(message) for message in posted] == [ChatEvent, TextReady, ChatEvent, TextReady]
    assert posted[2].text == "abc"
    assert posted[2].event == Notice("after c")
    assert bridge.take() == "d"
    assert bridge.take() == ""
    bridge.disconnect()
    bridge.emit(Notice("late"))
    assert len(posted) == 4


def test_the_bridge_loses_nothing_under_many_threads():
    bridge, posted = Bridge(), []
    bridge.connect(posted.append)
    threads = [threading.Thread(target=lambda: [bridge.emit(Delta("x")) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = 0
    while any(thread.is_alive() for thread in threads):
        taken += len(bridge.take())
    assert taken + len(bridge.take()) == 2000


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (6_100_000, "6.1 MB"), (999_950_000, "1.0 GB")]
)
def test_sizes_have_one_to_three_digits(count, words):
    assert size(count) == words


def test_durations_and_gauges():
    assert [duration(s) for s in (-1, 4.4, 100, 7500)] == ["0 s", "4 s", "1:40", "2:05:00"]
    assert gauge(0, 5) == ("", "░░░░░")
    assert gauge(0.001, 5) == ("▓", "░░░░"), "a little is not nothing"
    assert gauge(2, 5) == ("▓▓▓▓▓", "")


def test_progress_says_nothing_about_the_end_before_it_can_know():
    progress = Progress("reading")
    assert (progress.share, progress.left) == (0.0, "")
    progress.update(1, 0)
    assert progress.share == 0.0
    progress._began -= 10
    progress.update(25, 100)
    assert (progress.share, progress.left) == (0.25, "30 s left")
    progress.update(100, 100)
    assert progress.left == ""


def _node(node_id, role, text, *, continues=False, labels=(), stop=None, tokens=1):
    return Message(node_id, None, role, text, 1, 1, tokens, stop, 0, (node_id,), labels, continues)


def test_a_run_of_reply_nodes_is_one_message_with_all_its_names():
    groups = shown(
        [
            _node("q", "user", "hi"),
            _node("a", "assistant", "Good ", labels=("quick",), stop="saved", tokens=5),
            _node("b", "assistant", "day.", continues=True, labels=("done",), stop="stop", tokens=7),
        ]
    )
    assert [(g.role, g.text, g.ids) for g in groups] == [
        ("user", "hi", ("q",)),
        ("assistant", "Good day.", ("a", "b")),
    ]
    assert groups[1].names == ("quick", "done")
    assert (groups[1].stop, groups[1].total_tokens, groups[1].last_id) == ("stop", 7, "b")


def test_a_savepoint_that_does_not_exist_is_an_error_before_anything_is_painted():
    with pytest.raises(UnknownRef):
        tui_app.run_tui(TuiOptions(at="nosuch"), FakeEngine())


def test_leaving_does_not_wait_for_a_model_that_is_being_opened(monkeypatch):
    left, never = [], threading.Event()
    monkeypatch.setattr(tui_app.os, "_exit", left.append)
    monkeypatch.setattr(tui_app, "PATIENCE_S", 0.05)
    tui_app._close(SimpleNamespace(model=None, close=never.wait))
    assert left == [0]
    never.set()
    closed = []
    tui_app._close(SimpleNamespace(model=object(), close=lambda: closed.append(True)))
    assert closed == [True]
    assert left == [0], "an open model is given back in peace"


async def test_a_mistake_of_ours_ends_with_a_sentence_and_no_traceback(stages):
    words = []

    async def crash():
        async with stages() as stage:
            stage.screen.call_later(lambda: 1 / 0)
            await stage.until(lambda: stage.app._exit_renderables)
            words.extend(str(part) for part in stage.app._exit_renderables)

    with pytest.raises(ZeroDivisionError):  # the pilot raises it again
        await crash()
    assert len(words) == 1
    assert words[0].startswith("forkpoint had to stop: ")
    assert words[0].endswith("The conversation is saved.")
    assert "Traceback" not in words[0]
