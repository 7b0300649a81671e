"""Keys that come faster than the screen paints, as from a script or a paste without brackets."""

from textual import events

from app.tui.chat_screen import ChatScreen


def _burst(stage, *keys):
    """Put keys into the driver's queue at once, without waiting for any of them."""
    names = {" ": "space", "\n": "ctrl+j"}
    for key in keys:
        event = events.Key(names.get(key, key), key if len(key) == 1 else None)
        stage.app.post_message(event)


async def test_lines_and_messages_keep_their_order(stages):
    async with stages(limit=3) as stage:
        _burst(stage, *"one", "ctrl+j", *"two", "enter", *"next")
        await stage.until(lambda: len(stage.views) == 2)
        await stage.idle()
        assert stage.texts()[0] == "one\ntwo"
        assert stage.screen.prompt.text == "next"


async def test_messages_in_a_burst_are_sent_one_after_another(stages):
    async with stages(limit=3) as stage:
        _burst(stage, *"one", "enter", *"two", "enter", *"three", "enter")
        await stage.until(lambda: len(stage.views) == 6)
        await stage.idle()
        assert stage.texts()[::2] == ["one", "two", "three"]


async def test_half_a_command_in_a_burst_is_completed(stages):
    async with stages(limit=3) as stage:
        _burst(stage, *"/hel", "enter")
        await stage.until(lambda: stage.screen.prompt.text == "" or "HELP" in stage.seen())
        await stage.sees("HELP")


async def test_a_command_behind_a_message_works_on_its_reply(stages):
    async with stages(script={"hello": "Good day."}) as stage:
        _burst(stage, *"hello", "enter", *"/save it", "enter")
        await stage.until(lambda: "it" in stage.chat.labels())
        await stage.idle()


async def test_what_is_sent_in_the_first_moment_waits_for_the_model(stages, monkeypatch):
    held = []
    opens = ChatScreen._open_first_model
    monkeypatch.setattr(ChatScreen, "_open_first_model", lambda screen: held.append(screen))
    async with stages(ready=False, script={"hello": "Good day."}) as stage:
        await stage.until(lambda: held, "the first paint")
        await stage.enter("hello")
        await stage.until(lambda: stage.screen.queue == ["hello"], "the message to wait")
        opens(held[0])
        await stage.sees("Good day.")
        assert not any("No model" in words for words in stage.toasts())
        await stage.idle()
        assert stage.screen.talking == 0
