"""The watch for other processes' changes goes on through a moment in which the library cannot be read."""

from threading import Event

from app.tui import watcher
from snapshots import StoreError


class Chat:
    """Counts 0, fails twice, counts 1 from then on."""

    def __init__(self):
        self.looks = 0

    def outside_changes(self):
        self.looks += 1
        if self.looks in (2, 3):
            raise StoreError("is busy")
        return int(self.looks > 3)

    def back_up(self):
        return False


def test_a_look_that_fails_does_not_end_the_watch(monkeypatch):
    monkeypatch.setattr(watcher, "LOOK_S", 0.01)
    told = Event()
    watch = watcher.Watcher(Chat(), lambda message: told.set() if isinstance(message, watcher.LibraryChanged) else None)
    watch.start()
    try:
        assert told.wait(10)
    finally:
        watch.stop()
