"""The first paint waits for no library: what is waited for is said, and the chat opens as soon as it can."""

import threading

import pytest

from app.tui.opening import WAITING, Opening, OpeningApp, open_patiently
from snapshots import StoreBusy


@pytest.fixture
def gate():
    """Opens when it is set, and at the end in any case, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


async def test_what_is_waited_for_is_said_until_it_is_there(gate):
    opening = Opening(lambda: gate.wait(60) and "the chat")
    app = OpeningApp(opening, (None, "forkpoint-light"))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.2)
        shown = "\n".join(strip.text for strip in app.screen._compositor.render_strips())
        assert "● forkpoint" in shown
        assert WAITING in shown
        assert "Ctrl+C leaves" in shown
        assert app.theme == "forkpoint-light"
        gate.set()
        for _ in range(100):
            await pilot.pause(0.02)
            if not app.is_running:
                break
    assert app.return_value is True
    assert opening.chat() == "the chat"


async def test_who_will_not_wait_leaves(gate):
    app = OpeningApp(Opening(lambda: gate.wait(60)), ())
    async with app.run_test() as pilot:
        await pilot.press("ctrl+c")
        await pilot.pause(0.1)
    assert app.return_value is None


def test_what_opens_at_once_paints_nothing_and_errors_come_through(monkeypatch):
    monkeypatch.setattr(OpeningApp, "run", None)
    assert open_patiently(lambda: "the chat", ()) == "the chat"

    def busy():
        raise StoreBusy(0)

    with pytest.raises(StoreBusy):
        open_patiently(busy, ())


def test_leaving_gives_no_chat(gate, monkeypatch):
    monkeypatch.setattr(OpeningApp, "run", lambda self: None)
    assert open_patiently(lambda: gate.wait(60), ()) is None
