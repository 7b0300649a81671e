"""A thinking section is folded: one line, live while it grows, opened by a click, Enter or a key."""

from app.tui.thought import Thought, ThoughtLine
from tests.tui.stage import NARROW

REPLY = "<think>\nFirst *this*, then [that].\nHm.\n</think>\n\nThe **answer**."
SCRIPT = {"why": REPLY, "plain": "No thoughts."}
TOKENS = REPLY.index("</think>") + len("</think>")


async def test_a_finished_reply_shows_its_answer_and_one_line(stages):
    async with stages(script=SCRIPT, size=NARROW) as stage:
        await stage.send("why")
        await stage.sees("▸ thinking", f"· {TOKENS} tokens ·", "The answer.")
        assert "First" not in stage.seen()
        assert "<think>" not in stage.seen()
        assert stage.texts() == ["why", REPLY]  # what is kept and copied is whole
        await stage.send("plain")
        await stage.sees("No thoughts.")
        assert len(stage.screen.query(Thought)) == 1


async def test_it_opens_by_key_by_enter_and_by_click(stages):
    async with stages(script=SCRIPT, size=NARROW) as stage:
        await stage.send("why")
        stage.views[-1].focus()
        await stage.press("t")
        await stage.sees("▾ thinking", "First *this*, then [that].", "Hm.")
        await stage.press("t")
        await stage.sees_not("First")
        line = stage.screen.query_one(ThoughtLine)
        line.focus()
        await stage.press("enter")
        await stage.sees("First *this*")
        await stage.pilot.click(ThoughtLine)
        await stage.sees_not("First")
        await stage.command("/thinking")
        await stage.sees("First *this*")
        await stage.send("plain")
        stage.views[-1].focus()
        await stage.press("t")
        await stage.toast("no thinking here")


async def test_it_is_live_while_it_grows(stages):
    long = "<think>" + "word " * 60 + "</think>Done."
    async with stages(script={"why": long}, size=NARROW) as stage:
        async with stage.mid_reply("why"):
            await stage.sees("▸ thinking…", "tokens")
            await stage.until(lambda: "word" not in stage.seen())
            stage.screen.transcript.writing.focus()
            await stage.press("t")
            await stage.sees("▾ thinking…", "word word")
        await stage.idle()
        await stage.sees("Done.", f"▾ thinking · {len(long) - 5} tokens ·")


async def test_stopped_in_thought_and_read_again_after_a_restart(stages):
    async with stages(script=SCRIPT, size=NARROW, limit=20) as stage:
        await stage.send("why")
        await stage.sees("▸ thinking · 20 tokens", "at the length limit")
    async with stages(script=SCRIPT, size=NARROW) as stage:
        await stage.sees("▸ thinking · 20 tokens")
        await stage.command("/continue")
        await stage.sees("The answer.")
        assert len(stage.screen.query(Thought)) == 1


async def test_a_reply_that_begins_inside_of_its_thinking(stages):
    from tests.fake_engine import TEMPLATE

    opening = TEMPLATE + "{% if add_generation_prompt %}{{ '<think>' }}{% endif %}"
    async with stages(source=opening, script={"<think>": "quiet words</think>Loud words."}, size=NARROW) as stage:
        async with stage.mid_reply("why"):
            await stage.sees("▸ thinking…")
            assert "quiet" not in stage.seen()
        await stage.idle()
        await stage.sees("Loud words.", f"▸ thinking · {len('quiet words</think>')} tokens")
        assert "quiet" not in stage.seen()
