"""Sending, streaming, stopping, queueing, regenerating, editing, copying."""

import threading

from textual.widgets import OptionList

from tests.tui.stage import NARROW

SCRIPT = {"hello": "Good **day** to you.", "more": "And good night."}


async def test_a_message_is_sent_streamed_and_committed(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.sees("forkpoint", "savestates for conversations", "fake")
        await stage.send("hello")
        await stage.sees("❯ hello", "Good day to you.", "reused", "prefill", "saved ✓")
        assert stage.texts() == ["hello", "Good **day** to you."]
        assert [m.text for m in stage.chat.transcript()] == stage.texts()
        assert "savestates for conversations" not in stage.seen()
        assert stage.screen.prompt.text == ""


async def test_the_reply_is_seen_while_it_grows(stages):
    async with stages() as stage, stage.mid_reply():
        await stage.sees("▌", "Esc stops")
        writing = stage.screen.transcript.writing
        await stage.until(lambda: len(writing.markdown.source) > 10, "text in the view before the reply ends")
        assert stage.chat.status().generating
        await stage.sees("tok/s")
        await stage.press("escape")
        await stage.idle()


async def test_enter_sends_and_ctrl_j_makes_a_line(stages):
    async with stages(script={"two": "ok"}) as stage:
        await stage.write("one")
        await stage.press("shift+enter", "t", "w", "o")
        assert stage.screen.prompt.size.height == 2, "the prompt grows"
        await stage.press("enter")
        await stage.until(lambda: len(stage.views) == 2)
        assert stage.texts()[0] == "one\ntwo"


async def test_up_and_down_walk_through_what_was_sent_and_keep_the_draft(stages):
    async with stages(limit=2) as stage:
        await stage.send("first")
        await stage.send("second")
        await stage.write("draft")
        await stage.press("up")
        assert stage.screen.prompt.text == "second"
        await stage.press("up")
        assert stage.screen.prompt.text == "first"
        await stage.press("down", "down")
        assert stage.screen.prompt.text == "draft"


async def test_history_survives_a_restart_and_ctrl_r_searches_it(stages):
    async with stages(limit=2) as stage:
        await stage.send("about lighthouses")
        await stage.send("about cheese")
    async with stages(limit=2) as stage:
        await stage.press("ctrl+r")
        await stage.sees("Sent before", "about cheese")
        await stage.write("light")
        await stage.until(lambda: len(stage.app.screen.query_one(OptionList).options) == 1)
        await stage.press("enter")
        await stage.until(lambda: stage.screen.prompt.text == "about lighthouses")


async def test_esc_stops_the_reply_and_keeps_what_was_written(stages):
    async with stages() as stage, stage.mid_reply():
        await stage.press("escape")
        await stage.idle()
        await stage.sees("■ stopped · /continue goes on")
        assert stage.chat.transcript()[-1].stop == "cancelled"


async def test_ctrl_c_stops_then_clears_then_asks_before_it_quits(stages):
    async with stages() as stage, stage.mid_reply():
        await stage.write("draft")
        await stage.press("ctrl+c")
        await stage.idle()
        assert stage.chat.transcript()[-1].stop == "cancelled"
        assert stage.screen.prompt.text == "draft", "stopping touches no draft"
        await stage.press("ctrl+c")
        assert stage.screen.prompt.text == ""
        await stage.press("ctrl+c")
        await stage.toast("again quits")
        assert stage.app.is_running
        await stage.press("ctrl+c")
        await stage.until(lambda: stage.app._exit, "the app to leave")


async def test_ctrl_c_copies_a_selection_instead_of_clearing(stages):
    async with stages() as stage:
        await stage.write("precious")
        await stage.press("shift+home")
        await stage.press("ctrl+c")
        assert stage.app.clipboard == "precious"
        assert stage.screen.prompt.text == "precious"


async def test_what_is_typed_ahead_waits_its_turn(stages):
    async with stages(limit=100) as stage:
        async with stage.mid_reply("one"):
            await stage.write("two")
            await stage.press("enter")
            await stage.sees("next: two")
        await stage.idle()
        assert [m.text for m in stage.chat.transcript() if m.role == "user"] == ["one", "two"]
        assert len(stage.chat.transcript()) == 4
        await stage.sees_not("next: two")


async def test_stopping_gives_the_waiting_message_back(stages):
    async with stages() as stage, stage.mid_reply("one"):
        await stage.write("two")
        await stage.press("enter", "escape")
        await stage.idle()
        assert stage.screen.prompt.text == "two"
        assert [m.text for m in stage.chat.transcript() if m.role == "user"] == ["one"]


async def test_a_message_typed_before_the_model_is_open_is_sent_then(stages, monkeypatch):
    from tests.fake_engine import FakeEngine

    engine = FakeEngine(script=SCRIPT)
    gate = threading.Event()
    real = engine.open_model

    def slow(*args, progress=None, **options):
        progress("compile", 3, 10)
        gate.wait(30)
        return real(*args, progress=progress, **options)

    monkeypatch.setattr(engine, "open_model", slow)
    async with stages(engine=engine, ready=False) as stage:
        await stage.sees("compiling for this machine", "30%")
        await stage.write("hello")
        await stage.press("enter")
        await stage.sees("next: hello")
        gate.set()
        await stage.sees("Good day to you.")


async def test_r_on_a_reply_writes_another_and_brackets_walk_between_them(stages):
    async with stages(limit=12, seed=None) as stage:
        await stage.send("go")
        first = stage.texts()[-1]
        await stage.press("shift+tab")
        await stage.sees("r another · e edit · f fork")
        await stage.press("r")
        await stage.pilot.pause()
        await stage.idle()
        await stage.sees("‹ 2/2 ›")
        second = stage.texts()[-1]
        assert second != first
        assert len(stage.views) == 2, "the new reply stands in the place of the old one"
        assert stage.screen.focused is stage.views[-1], "the focus stays among the messages"
        await stage.press("up", "left_square_bracket")
        await stage.toast("only this one; e asks otherwise")
        await stage.press("down", "left_square_bracket")
        await stage.sees("‹ 1/2 ›")
        assert stage.texts()[-1] == first
        await stage.idle()
        await stage.press("right_square_bracket")
        await stage.sees("‹ 2/2 ›")
        assert stage.texts()[-1] == second


async def test_r_on_an_earlier_reply_begins_a_branch_there(stages):
    async with stages(limit=4, seed=None) as stage:
        await stage.send("one")
        await stage.send("two")
        await stage.press("shift+tab", "up", "up", "r")
        await stage.until(lambda: len(stage.views) == 2, "the later turn to make room")
        await stage.idle()
        await stage.sees("‹ 2/2 ›")
        assert len(stage.chat.tree()) == 5


async def test_the_window_changes_its_size_in_mid_reply(stages):
    async with stages() as stage, stage.mid_reply():
        for size in ((60, 15), (140, 50), (80, 24)):
            await stage.pilot.resize_terminal(*size)
            await stage.pilot.pause()
        await stage.sees("❯ go", "Esc stops")
        await stage.press("escape")
        await stage.idle()
        assert stage.views[-1].markdown.source == stage.chat.transcript()[-1].text


async def test_e_on_a_question_makes_a_branch_and_esc_leaves_it(stages):
    async with stages(limit=5) as stage:
        await stage.send("what is tea")
        await stage.press("shift+tab", "up", "e")
        await stage.sees("editing a message")
        assert stage.screen.prompt.text == "what is tea"
        await stage.press("escape")
        await stage.sees_not("editing")
        assert stage.screen.prompt.text == ""
        await stage.press("shift+tab", "up", "e")
        await stage.sees("editing a message")
        await stage.write("spoon")
        await stage.press("enter")
        await stage.pilot.pause()
        await stage.idle()
        await stage.sees("what is teaspoon", "‹ 2/2 ›")
        assert len(stage.chat.tree()) == 4, "the old question and its reply stay"


async def test_an_edited_reply_is_another_version_of_it(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.press("shift+tab", "e")
        await stage.sees("editing the reply")
        await stage.write(" Really.")
        await stage.press("enter")
        await stage.until(lambda: stage.screen.working or "Really" in stage.texts()[-1])
        await stage.idle()
        assert stage.texts()[-1] == "Good **day** to you. Really."
        await stage.sees("‹ 2/2 ›")


async def test_continue_goes_on_in_the_same_message(stages):
    async with stages(limit=8) as stage:
        await stage.send("go")
        before = stage.texts()[-1]
        await stage.command("/continue")
        assert len(stage.views) == 2
        assert stage.texts()[-1].startswith(before)
        assert len(stage.texts()[-1]) > len(before)
        assert stage.views[-1].markdown.source == stage.texts()[-1]


async def test_y_copies_the_reply_as_it_was_written(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.press("shift+tab", "y")
        await stage.until(lambda: stage.app.clipboard == "Good **day** to you.")
        await stage.toast("Copied")


async def test_a_full_context_offers_a_branch_and_keeps_the_draft(stages):
    async with stages(NARROW, limit=20, context=120) as stage:
        for word in ("one", "two"):
            await stage.send(word)
        stage.screen.prompt.put("x" * 66)
        await stage.press("enter")
        await stage.sees("The context is full", "send it there")
        assert stage.screen.prompt.text == "x" * 66
        tree = len(stage.chat.tree())
        assert len(stage.chat.tree()) == tree, "nothing is committed"
        await stage.press("enter")
        await stage.until(lambda: len(stage.chat.tree()) > tree)
        await stage.idle()
        assert stage.texts()[-2] == "x" * 66
        assert stage.screen.prompt.text == ""


async def test_temperature_zero_offers_the_runner_up(stages):
    async with stages(limit=6) as stage:
        await stage.command("/set temperature 0")
        await stage.toast("temperature is now 0")
        await stage.send("go")
        await stage.command("/regen")
        await stage.sees("At temperature 0", "write from there")
        await stage.press("enter")
        await stage.pilot.pause()
        await stage.idle()
        await stage.sees("‹ 2/2 ›")
