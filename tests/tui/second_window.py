"""The app in a process of its own, on a scripted engine and the real library; obeys lines on stdin.

    see TEXT      waits until the text stands on its screen        save NAME     names where it stands
    quit          closes

Behind each line it says when that was done, in seconds of the clock that all processes share.
"""

import asyncio
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from app.chat import Chat, ChatOptions  # noqa: E402
from app.config import TuiOptions  # noqa: E402
from app.tui.app import ForkpointApp  # noqa: E402
from app.tui.bridge import Bridge  # noqa: E402
from tests.fake_engine import FakeEngine  # noqa: E402
from tests.tui.stage import WIDE, Stage  # noqa: E402


async def main():
    bridge, engine = Bridge(), FakeEngine()
    chat = Chat(bridge.emit, ChatOptions(limit=4, seed=7), engine=engine, model=Path("fake.gguf"))
    chat.start()
    app = ForkpointApp(chat, bridge, TuiOptions())
    app.animation_level = "none"
    try:
        async with app.run_test(size=WIDE) as pilot:
            stage = Stage(app, pilot, chat, engine)
            await stage.until(lambda: chat.model is not None, "the model to open")
            await stage.idle()
            done()
            while (line := (await asyncio.to_thread(sys.stdin.readline)).strip()) not in ("", "quit"):
                what, rest = line.split(" ", 1)
                if what == "see":
                    await stage.sees(rest)
                else:
                    await stage.command(f"/save {rest}")
                done()
    finally:
        chat.close()


def done():
    print(time.monotonic(), flush=True, file=OUT)


OUT = sys.__stdout__
asyncio.run(main())
