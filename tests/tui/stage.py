"""The screen on a scripted engine and a real store: a stage that presses keys and waits for what is to be seen."""

import asyncio
import time
from contextlib import asynccontextmanager

from app.tui.message_view import MessageView

WIDE, NARROW = (120, 40), (80, 24)


async def wait_until(condition, what="", timeout_s=10.0):
    """Give the loop time until the condition holds; fail with what was waited for."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s} s in vain for {what or condition}")
        await asyncio.sleep(0.01)


TICK_S = 0.01


class Ticker:
    """Inside `async with`, a coroutine that wants to run every 10 ms, in the thread of the event loop.

    More often would keep the process from what Pilot takes for idle (1 ms of work in 20 ms), for which it waits up to a
    second at every key.

    `stall` is the longest that it had to wait beyond that, less what the thread stood in the machine's queue for a
    processor meanwhile: a busy neighbour is no fault of the screen. `blocked` is the longest wait in which the loop did
    not compute either: it waited for a lock, a file or another thread. Where the kernel keeps no such account (Linux
    does), both are what the clock says, `clock`.
    """

    async def __aenter__(self):
        self.stall = self.blocked = self.clock = 0.0
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_):
        await asyncio.sleep(0.01)
        self._task.cancel()

    async def _tick(self):
        last = _account()
        while True:
            await asyncio.sleep(TICK_S)
            now = _account()
            gap, computed, queued = (new - old for new, old in zip(now, last, strict=True))
            last = now
            self.clock = max(self.clock, gap - TICK_S)
            self.stall = max(self.stall, gap - queued - TICK_S)
            self.blocked = max(self.blocked, gap - queued - computed - TICK_S)


def _account():
    """Seconds: the clock, what this thread computed, what it waited for a processor."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            computed, queued, _ = file.read().split()
    except OSError:
        computed = queued = 0
    return time.monotonic(), int(computed) / 1e9, int(queued) / 1e9


class Stage:
    """One app under a pilot."""

    def __init__(self, app, pilot, chat, engine):
        self.app, self.pilot, self.chat, self.engine = app, pilot, chat, engine
        self.screen = app.chat_screen

    def seen(self):
        """What stands on the terminal, line by line."""
        return "\n".join(strip.text.rstrip() for strip in self.app.screen._compositor.render_strips())

    async def until(self, condition, what="", timeout_s=10.0):
        try:
            await wait_until(condition, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.seen()}") from None
        await self.pilot.pause()

    async def sees(self, *texts):
        """Wait until every text stands on the terminal."""
        await self.until(lambda: all(text in self.seen() for text in texts), f"{texts} on the screen")

    async def sees_not(self, text):
        await self.until(lambda: text not in self.seen(), f"{text!r} to go from the screen")

    async def press(self, *keys):
        await self.pilot.press(*keys)

    async def write(self, text):
        """Type a text as a person would; line ends with Ctrl+J."""
        names = {" ": "space", "\n": "ctrl+j"}
        await self.pilot.press(*[names.get(char, char) for char in text])

    async def enter(self, text):
        """Put a text into the prompt, as a paste does, and press Enter."""
        self.screen.prompt.put(text)
        await self.press("enter")

    @asynccontextmanager
    async def mid_reply(self, text="go"):
        """Inside, a reply is being written at leisure; afterwards it may run as fast as it can."""
        self.chat.model.step_s = 0.05
        await self.enter(text)
        await self.until(lambda: self.chat.status().generating, "the reply to begin")
        yield
        self.chat.model.step_s = 0.0

    async def idle(self):
        """Wait until nothing works and everything is painted."""

        def quiet():
            return self.screen.working == 0 and not self.screen.queue and not self.screen.reactions.reading

        for _ in range(2):  # what the last event brought is read in a thread before it is painted
            await self.until(quiet, "all work to end")
        await self.until(quiet, "all work to end")

    async def send(self, text):
        """Send a message and wait for the whole reply."""
        await self.enter(text)
        await self.until(lambda: self.screen.working > 0 or self.screen.queue or self.views, "the message to be taken")
        await self.idle()

    @property
    def views(self):
        return [view for view in self.screen.query(MessageView) if view.shown]

    def texts(self):
        return [view.shown.text for view in self.views]

    def toasts(self):
        return [notification.message for notification in self.app._notifications]

    async def toast(self, *parts):
        """Wait until one toast holds every part."""
        await self.until(lambda: any(all(p in t for p in parts) for t in self.toasts()), f"a toast with {parts}")

    async def command(self, line):
        """Type a slash command and wait until it is done."""
        self.screen.prompt.put(line)
        self.screen.completion.close()
        self.screen.focus_prompt()
        await self.press("enter")
        await self.pilot.pause()
        await self.idle()
