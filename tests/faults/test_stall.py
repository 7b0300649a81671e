"""Row 20: while a large state is saved and restored, the event loop of the screen never stands still for 50 ms.

The states are real: a model of random weights with much KV a token computes them, the engine copies them out, the store
writes and reads them. What the ticker counts is said at `tests.tui.stage.Ticker`; the best of a few attempts counts,
because a stall of ours comes with every one.
"""

from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from conformance import family_models

from app.chat import Chat, ChatOptions
from app.config import TuiOptions
from app.local_engine import LocalEngine
from app.tui.app import ForkpointApp
from app.tui.bridge import Bridge
from app.workbench import ModelOptions
from tests.faults.report import report
from tests.tui.stage import WIDE, Stage, Ticker

STALL_S = 0.05
ATTEMPTS = 3
LAYERS, KV_HEADS, HEAD_DIM = 4, 32, 128
TOKEN_BYTES = LAYERS * KV_HEADS * HEAD_DIM * 2 * 2  # keys and values of float16: 64 KiB
MIB = 1 << 20


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory) -> Path:
    """Small matrices, but 64 KiB of keys and values a token."""
    keys = {"attention.key_length": HEAD_DIM, "attention.value_length": HEAD_DIM}
    shape = family_models.FamilyModel("llama", LAYERS, 64, 64, KV_HEADS, KV_HEADS, HEAD_DIM, 77, keys)
    return family_models.write(tmp_path_factory.mktemp("wide") / "wide.gguf", shape)


@asynccontextmanager
async def opened(model: Path, tokens: int):
    """The app on a real engine, with room for a conversation of so many tokens."""
    bridge = Bridge()
    options = ChatOptions(ModelOptions(context=tokens + 256), limit=4, seed=7)
    chat = Chat(bridge.emit, options, engine=LocalEngine(), model=model)
    chat.start()
    app = ForkpointApp(chat, bridge, TuiOptions())
    app.animation_level = "none"
    try:
        async with app.run_test(size=WIDE, notifications=True) as pilot:
            stage = Stage(app, pilot, chat, None)
            await stage.until(lambda: chat.model is not None, "the model to open", 240)
            await stage.idle()
            yield stage
    finally:
        chat.close()


async def save(stage, message, mib) -> Ticker:
    """A message of that size, its reply, and the state behind it on its way to the disk."""
    before = stage.screen.saved_bytes
    async with Ticker() as ticker:
        stage.screen.reactions.send(lambda: stage.chat.send(message, raw=True), message)
        await stage.until(lambda: stage.screen.working == 0, "the reply", 240)
        await stage.until(lambda: stage.screen.saved_bytes - before > 0.5 * mib * MIB, "the save", 240)
        await stage.idle()
    return ticker


async def restore(stage, name) -> Ticker:
    """To a savepoint whose state is on disk alone."""
    async with Ticker() as ticker:
        stage.screen.run_deed("load", name)
        await stage.toast("nothing computed")
        await stage.idle()
    return ticker


async def measure(model: Path, mib: int) -> None:
    tokens = mib * MIB // TOKEN_BYTES
    saves, restores = [], []
    async with opened(model, tokens) as stage:
        # Tokens are characters here; each attempt has a beginning of its own, so that nothing of it is on disk.
        while len(saves) < ATTEMPTS and (not saves or saves[-1].stall >= STALL_S):
            await stage.command("/new")
            saves.append(await save(stage, f"{len(saves)} " * (tokens // 2), mib))
            assert stage.chat.status().tokens >= 0.9 * tokens
        await stage.command("/save large")
        while len(restores) < ATTEMPTS and (not restores or restores[-1].stall >= STALL_S):
            await stage.command("/new")
            await stage.send(f"{len(restores)} other words")
            restores.append(await restore(stage, "large"))
            assert stage.chat.status().tokens >= 0.9 * tokens
    figures = {
        f"{what}_{field}_ms": [round(1e3 * getattr(ticker, field), 1) for ticker in tickers]
        for what, tickers in (("save", saves), ("restore", restores))
        for field in ("stall", "blocked", "clock")
    }
    report(20, mib=mib, **figures)
    assert saves[-1].stall < STALL_S, [ticker.stall for ticker in saves]
    assert restores[-1].stall < STALL_S, [ticker.stall for ticker in restores]


async def test_the_screen_does_not_stall_during_a_save_and_a_restore(wide_model):
    await measure(wide_model, 32)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(3))
async def test_the_screen_does_not_stall_during_200_mib(wide_model, number):
    await measure(wide_model, 200)
