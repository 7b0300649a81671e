"""The screen has a message read while it is typed."""

QUESTION = "a question of some length about harbours"


async def test_a_message_that_rested_a_moment_is_read_before_it_is_sent(stages):
    async with stages(script={QUESTION: "Yes."}) as stage:
        await stage.sees("fake")
        before = stage.chat.model.fed
        await stage.write(QUESTION)
        await stage.until(lambda: stage.chat.model.fed - before > len(QUESTION) - 5, "the draft to be read")
        read = stage.chat.model.fed
        await stage.press("enter")
        await stage.sees(f"❯ {QUESTION}", "Yes.", "reused")
        await stage.idle()
        assert stage.chat.model.fed - read < 30  # the template's end and the reply


async def test_commands_and_edited_messages_are_not_read_ahead(stages):
    async with stages(limit=2) as stage:
        await stage.send("first")
        fed = stage.chat.model.fed
        await stage.write("/he")
        await stage.pilot.pause(0.5)
        await stage.press("escape", "backspace", "backspace", "backspace")
        stage.screen.run_deed("edit")
        await stage.until(lambda: stage.screen.editing is not None)
        await stage.pilot.pause(0.5)
        assert stage.chat.model.fed == fed
