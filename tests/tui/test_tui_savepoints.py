"""Saving, naming, forking, restoring, undoing, the tree."""

import asyncio

from textual.widgets import OptionList

from tests.tui.stage import NARROW

SCRIPT = {"hello": "Good day.", "more": "And good night.", "again": "A third time."}


async def test_f5_and_f9_return_and_say_how(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.press("f5")
        await stage.toast("F9 returns")
        await stage.sees("★ quick")
        await stage.send("more")
        assert len(stage.views) == 4
        await stage.press("f9")
        await stage.until(lambda: len(stage.views) == 2, "the later turn to go")
        await stage.idle()
        await stage.toast("uicksave", "/undo returns")
        assert stage.texts() == ["hello", "Good day."]


async def test_f5_in_mid_reply_keeps_writing_and_f9_goes_back_there(stages):
    async with stages() as stage, stage.mid_reply():
        writing = stage.screen.transcript.writing
        await stage.until(lambda: len(writing.markdown.source) > 5)
        await stage.press("f5")
        await stage.toast("F9 returns")
        await stage.until(lambda: any("quick" in row.labels for row in stage.chat.tree()))
        saved = next(row.node_id for row in stage.chat.tree() if "quick" in row.labels)
        part = stage.chat.transcript_of(saved)[-1].text
        await stage.until(lambda: len(writing.markdown.source) > len(part) + 3, "the reply to go on")
        assert stage.chat.status().generating
        assert len(stage.screen.transcript.views) == 2, "one reply is one message"
        await stage.press("f9")
        await stage.idle()
        await stage.until(lambda: stage.texts()[-1:] == [part])
        await stage.sees("/continue goes on")


async def test_save_as_asks_for_a_name_and_guards_one_that_is_taken(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.press("ctrl+s")
        await stage.sees("Save as")
        await stage.write("greeting")
        await stage.press("enter")
        await stage.toast("★ greeting", "/load greeting")
        await stage.sees("──── ★ greeting · t1 ·")
        first = stage.chat.labels()["greeting"]
        await stage.send("more")
        await stage.press("ctrl+s")
        await stage.write("greeting")
        await stage.press("enter")
        await stage.sees("Enter again moves the name here")
        assert stage.chat.labels()["greeting"] == first
        await stage.press("enter")
        await stage.until(lambda: stage.chat.labels()["greeting"] != first)
        await stage.press("ctrl+s")
        await stage.sees("Save as")
        await stage.press("escape")
        await stage.sees_not("Save as")


async def test_a_bad_name_is_one_sentence(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.command("/save abcdef12")
        await stage.toast("abcdef12")
        assert stage.chat.labels() == {}


async def test_fork_names_a_branch_and_the_next_message_grows_beside(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.send("more")
        await stage.press("shift+tab", "up", "up", "f")
        await stage.sees("Fork", "branch-1")
        await stage.press("enter")
        await stage.until(lambda: "branch-1" in stage.chat.labels())
        await stage.idle()
        await stage.until(lambda: stage.texts() == ["hello", "Good day."])
        await stage.sees("⎇ branch-1")
        await stage.send("again")
        assert stage.texts() == ["hello", "Good day.", "again", "A third time."]
        await stage.sees("‹ 2/2 ›")


async def test_the_tree_previews_as_one_moves_and_restores_at_enter(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.command("/save start")
        await stage.send("more")
        await stage.sees("TREE", "★ start", "◀ here")
        here = stage.chat.status().node_id
        await stage.press("ctrl+t")
        assert stage.screen.tree_panel.has_focus
        await stage.press("up")
        await stage.sees("preview · Enter goes there")
        await stage.until(lambda: len(stage.views) == 2, "the preview")
        assert stage.chat.status().node_id == here, "a look changes nothing"
        await stage.press("escape")
        await stage.until(lambda: stage.texts()[-1] == "And good night.")
        await stage.press("ctrl+t", "up", "enter")
        await stage.until(lambda: stage.chat.status().node_id == stage.chat.labels()["start"])
        await stage.idle()
        await stage.toast("★ start", "/undo returns")
        assert stage.texts() == ["hello", "Good day."]
        assert stage.screen.prompt.has_focus


async def test_a_look_ends_when_a_message_is_sent_meanwhile(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.command("/save start")
        await stage.send("more")
        await stage.press("ctrl+t", "up")
        await stage.sees("preview · Enter goes there")
        await asyncio.to_thread(stage.chat.send, "again")  # as the queue does
        await stage.until(lambda: stage.texts()[-2:] == ["again", "A third time."])
        assert not stage.screen.transcript.border_subtitle
        assert len(stage.views) == 6


async def test_on_a_narrow_screen_the_tree_lies_over_the_chat(stages):
    async with stages(NARROW, script=SCRIPT) as stage:
        await stage.send("hello")
        assert "TREE" not in stage.seen()
        await stage.press("ctrl+t")
        await stage.sees("TREE", "◀ here")
        await stage.press("escape")
        await stage.sees_not("TREE")
        assert stage.screen.prompt.has_focus


async def test_undo_takes_back_a_turn_and_redo_brings_it_again(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.send("more")
        await stage.command("/undo")
        await stage.until(lambda: len(stage.views) == 2)
        await stage.command("/redo")
        await stage.until(lambda: len(stage.views) == 4)


async def test_delete_is_undone(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.send("more")
        await stage.press("shift+tab", "up")
        await stage.command("/back")
        await stage.until(lambda: len(stage.views) == 2)
        await stage.command("/delete")
        await stage.toast("/undo brings")
        await stage.command("/undo")
        await stage.until(lambda: len(stage.chat.tree()) == 4)


async def test_open_finds_a_savepoint_by_some_letters(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.command("/save early-morning")
        await stage.send("more")
        await stage.command("/save late-night")
        await stage.press("ctrl+o")
        await stage.sees("★ early-morning", "★ late-night")
        await stage.write("emorn")
        await stage.until(lambda: len(stage.app.screen.query_one(OptionList).options) == 1)
        await stage.press("enter")
        await stage.until(lambda: stage.texts() == ["hello", "Good day."])


async def test_esc_esc_opens_the_rewind_picker_and_changes_nothing_until_enter(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.send("more")
        await stage.press("escape", "escape")
        await stage.sees("Rewind to before")
        await stage.press("escape")
        await stage.sees_not("Rewind to before")
        assert len(stage.views) == 4
        await stage.press("escape", "escape")
        await stage.sees("Rewind to before")
        await stage.press("enter")
        await stage.until(lambda: len(stage.views) == 2)
        assert stage.screen.prompt.text == "more"


async def test_another_conversation_is_a_line_in_the_tree(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.command("/new")
        await stage.until(lambda: not stage.views)
        await stage.send("more")
        await stage.sees("other conversations", "◇ hello")
        await stage.press("ctrl+t", "end", "enter")
        await stage.until(lambda: stage.texts() == ["hello", "Good day."])


async def test_it_opens_where_it_was_left(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.command("/save start")
        await stage.send("more")
    async with stages(script=SCRIPT, ready=False) as stage:
        await stage.until(lambda: stage.texts() == ["hello", "Good day.", "more", "And good night."])
        await stage.until(lambda: stage.chat.model is not None)
        await stage.idle()
        await stage.sees("ctx")
        assert stage.engine.models[0].fed == 0, "restored, not computed"


async def test_name_renames_the_savepoint_of_a_message(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.press("shift+tab", "n")
        await stage.sees("A name for this savepoint")
        await stage.write("one")
        await stage.press("enter")
        await stage.until(lambda: list(stage.chat.labels()) == ["one"])
        await stage.command("/name two")
        await stage.toast("It is called “two” now; /undo gives back")
        await stage.until(lambda: list(stage.chat.labels()) == ["two"])
        await stage.sees("★ two")


async def test_find_goes_to_a_message_of_any_conversation(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.enter("/new")
        await stage.idle()
        await stage.send("more")
        await stage.enter("/find Good day")
        await stage.sees("Find “Good day”", "Good day.")
        await stage.press("enter")
        await stage.until(lambda: stage.texts() == ["hello", "Good day."], "the other conversation")
        await stage.enter("/find xyzzy")
        await stage.toast("Nothing holds")


async def test_a_conversation_is_exported_and_imported_from_the_prompt(stages, tmp_path):
    file = tmp_path / "talk.fork"
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.enter(f"/export {file}")
        await stage.toast("Exported to")
        assert file.read_bytes().startswith(b"forkpoint export 1")
        await stage.enter(f"/import {file}")
        await stage.toast("are new")
        file.write_bytes(b"junk")
        await stage.enter(f"/import {file}")
        await stage.toast("cannot be imported")


async def test_diff_says_where_a_savepoint_parts_from_here(stages):
    async with stages(script=SCRIPT) as stage:
        await stage.send("hello")
        await stage.enter("/save start")
        await stage.idle()
        await stage.send("more")
        await stage.enter("/save left")
        await stage.idle()
        await stage.enter("/load start")
        await stage.until(lambda: len(stage.views) == 2, "the later turn to go")
        await stage.idle()
        await stage.send("again")
        await stage.enter("/diff left")
        await stage.sees("left parts from here behind turn 1.", "── left ──", "And good night.")
        await stage.enter("/diff start left")
        await stage.sees("left parts from start behind turn 1.", "── start ──", "(nothing more)", "── left ──")
        await stage.enter("/diff nowhere")
        await stage.toast("no savepoint")
