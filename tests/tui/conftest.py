"""The fixture that opens the app on a scripted engine and a real store."""

from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.chat import Chat, ChatOptions
from app.config import TuiOptions
from app.tui.app import ForkpointApp
from app.tui.bridge import Bridge
from engine.sampler import SamplerSettings
from tests.fake_engine import FakeEngine, FakeModel
from tests.tui.stage import WIDE, Stage


@pytest.fixture(scope="session", autouse=True)
def compiled_sampler():
    """The scripted engine samples with the real sampler: compile it before anything waits for a reply."""
    engine = FakeEngine()
    logits = FakeModel("warm.gguf").logits_of([1])
    engine.sample(logits, [1], SamplerSettings(), engine.dice_from_seed(1), 1)


@pytest.fixture
def stages():
    """A function that opens the app on this test's library; `limit` bounds a reply, the rest goes to the engine."""

    @asynccontextmanager
    async def open_stage(
        size=WIDE, *, limit=None, seed=7, engine=None, tui=None, ready=True, theme=None, before_mount=None, **fake
    ):
        engine = engine or FakeEngine(**fake)
        bridge = Bridge()
        tui = tui or TuiOptions()
        options = ChatOptions(limit=limit, seed=seed, incognito=tui.no_save)
        chat = Chat(bridge.emit, options, engine=engine, model=Path("fake.gguf"))
        chat.start(tui.at)
        app = ForkpointApp(chat, bridge, tui, theme)
        app.animation_level = "none"
        if before_mount is not None:
            before_mount(chat)
        try:
            async with app.run_test(size=size, notifications=True) as pilot:
                stage = Stage(app, pilot, chat, engine)
                if ready:
                    await stage.until(lambda: chat.model is not None, "the model to open")
                    await stage.idle()
                yield stage
        finally:
            chat.close()

    return open_stage
