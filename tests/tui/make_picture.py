"""Makes the README's picture, assets/screen.svg: the real screen on the bundled model, after a short real conversation.

    python tests/tui/make_picture.py [OUT.svg]

The seed is fixed, so the words are the same every time for the same model file.
"""

import asyncio
import os
import re
import sys
import tempfile
from pathlib import Path

SIZE = (112, 27)
SEED = 4
ROOT = Path(__file__).resolve().parents[2]


async def play(pilot, screen):
    """Talk, name, go back, and take another way, as a person would."""

    async def settle():
        await pilot.pause(0.3)
        while screen.working or screen.queue:
            await asyncio.sleep(0.05)
        await pilot.pause(0.3)

    async def enter(text):
        screen.prompt.put(text)
        screen.completion.close()
        await pilot.press("enter")
        await settle()

    await settle()
    await enter("Hello! Who are you?")
    await enter("How do I save a conversation?")
    await enter("/save before-story")
    await enter("Tell me a story about the sea.")
    await enter("/regen")
    await enter("/save sea-story")
    await enter("/load before-story")
    await enter("Tell me a little story.")
    await enter("/save the-story")
    await enter("/load before-story")
    await enter("What is a fork?")
    await enter("/save about-forks")
    screen.app.clear_notifications()
    await pilot.pause(0.5)


async def main(out: Path) -> None:
    """Run the app without a terminal and write what it shows."""
    from app.chat import Chat, ChatOptions
    from app.config import TuiOptions
    from app.local_engine import LocalEngine
    from app.tui.app import ForkpointApp
    from app.tui.bridge import Bridge

    class SteadyDice(LocalEngine):
        """New dice for another reply, the same every time."""

        def new_dice(self) -> bytes:
            return self.dice_from_seed(SEED + 1)

    bridge = Bridge()
    chat = Chat(bridge.emit, ChatOptions(seed=SEED), engine=SteadyDice())
    chat.start()
    app = ForkpointApp(chat, bridge, TuiOptions())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await play(pilot, app.chat_screen)
        picture = app.export_screenshot(title="forkpoint")
    chat.close()
    for fetched in (r"@font-face\s*\{.*?\}", r"<!--.*?-->"):  # a picture fetches nothing
        picture = re.sub(fetched, "", picture, flags=re.DOTALL)
    out.write_text(picture.replace("<text ", '<text xml:space="preserve" '), encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        for kind in ("DATA", "CONFIG"):
            os.environ[f"FORKPOINT_{kind}_DIR"] = str(Path(home) / kind.lower())
        sys.path.insert(0, str(ROOT))
        asyncio.run(main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "assets" / "screen.svg"))
