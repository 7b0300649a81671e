"""Hostile text, errors, recovery, and what surrounds a chat."""

import asyncio

from textual import events

from app.events import Delta
from app.tui.plain import one_line, plain
from tests.fake_engine import FakeEngine
from tests.tui.stage import NARROW

HOSTILE = "[bold red]x[/] \x1b[31mred\x1b]0;title\x07 \u202eabc\u2066 <b>b</b> [@click=app.quit]go[/]"


async def test_hostile_text_is_shown_literally_everywhere(stages):
    async with stages(
        script={"HOSTILE": HOSTILE + " &#27;[1m&#x202e;entity\n\n[link](javascript:x) ![i](http://e.vil/x.png)"}
    ) as stage:
        await asyncio.to_thread(stage.chat.send, HOSTILE + " HOSTILE")  # as from the command line
        await stage.until(lambda: len(stage.views) == 2)
        await stage.command("/save [red]name")
        await stage.sees("❯ [bold red]x[/] ␛[31mred␛]0;title␇")
        seen = stage.seen()
        assert seen.count("[bold red]x[/]") >= 2, "in the question and in the reply"
        assert "<b>b</b>" in seen
        assert "[@click=app.quit]go[/]" in seen
        for sign in ("\x1b", "\x07", "\u202e", "\u2066"):
            assert sign not in seen
        assert stage.chat.transcript()[0].text.startswith(HOSTILE), "the library keeps what was written"
        stage.screen.prompt.remember(stage.chat.prompt_history())
        await stage.press("up")
        assert stage.screen.prompt.text.startswith("[bold red]x[/] ␛[31m"), "from the history, too"


async def test_a_large_paste_is_taken_and_offered_back_when_it_does_not_fit(stages):
    text = "\n".join(f"line {number} of a large paste [b]" for number in range(5000)) + "\x1b[2J"
    async with stages(NARROW) as stage:
        stage.screen.prompt.post_message(events.Paste(text))
        await stage.until(lambda: len(stage.screen.prompt.text) == len(text), "the paste")
        assert stage.screen.prompt.text.endswith("␛[2J")
        assert stage.screen.prompt.size.height == 8, "the prompt stops growing"
        await stage.press("enter")
        await stage.sees("The context is full")
        await stage.idle()
        assert stage.screen.prompt.text.startswith("line 0 of"), "nothing of it is lost"


async def test_a_link_in_a_reply_opens_nothing(stages, monkeypatch):
    opened = []
    async with stages(script={"go": "[here](https://example.com/a)"}) as stage:
        monkeypatch.setattr(stage.app, "open_url", lambda *a, **k: opened.append(a))
        await stage.send("go")
        markdown = stage.views[-1].markdown
        markdown.post_message(markdown.LinkClicked(markdown, "https://example.com/a"))
        await stage.toast("not opened", "https://example.com/a")
        assert opened == []
        assert stage.app.clipboard == "https://example.com/a"


def test_plain_leaves_text_alone_and_shows_what_would_act():
    assert plain("Grüße, 日本 👩‍👩‍👧 [b]") == "Grüße, 日本 👩‍👩‍👧 [b]"
    assert plain("a\r\nb\tc") == "a\nb\tc"
    assert plain("\x00\x1b\x7f\x9b\u202e\ud800") == "␀␛␡���"


def test_one_line_counts_cells_not_letters():
    assert one_line("日本語のとても長い文章", 9) == "日本語の…"
    assert one_line("a\n\tb   c", 9) == "a b c"
    assert one_line("abcdefghij", 5) == "abcd…"


async def test_unknown_things_are_one_sentence_with_the_nearest(stages):
    async with stages(script={"hello": "Good day."}) as stage:
        await stage.send("hello")
        await stage.command("/save morning")
        await stage.command("/load mornign")
        await stage.toast("mornign", "morning")
        await stage.command("/laod")
        await stage.toast("There is no /laod; did you mean /load?")
        assert stage.screen.prompt.text == "/laod", "what was typed stays to be mended"
        await stage.command("/set temperatur 1")
        await stage.toast("There is no setting")
        await stage.command("/set temperature warm")
        await stage.toast("takes a number")
        await stage.command("/theme nope")
        await stage.toast("There is no theme")
        assert not any("Traceback" in text or "Error" in text for text in stage.toasts())


async def test_a_model_that_cannot_be_opened_is_one_sentence_and_the_text_stays(stages, monkeypatch):
    async with stages(script={"hello": "Good day."}) as stage:
        await stage.send("hello")
    engine = FakeEngine()

    def fail(*_args, **_options):
        raise FileNotFoundError(2, "No such file or directory", "fake.gguf")

    monkeypatch.setattr(engine, "open_model", fail)
    async with stages(NARROW, engine=engine, ready=False) as stage:
        await stage.toast("fake.gguf", "no such file")
        await stage.sees("❯ hello", "Good day.", "No model is open: /model FILE")
        await stage.write("still here")
        await stage.press("enter")
        await stage.toast("No model is open")
        assert stage.screen.prompt.text == "still here"


async def test_a_failing_engine_is_a_sentence_and_the_app_lives(stages, monkeypatch):
    async with stages() as stage:
        monkeypatch.setattr(stage.chat.model, "step", _boom)
        await stage.write("go")
        await stage.press("enter")
        await stage.toast("it broke")
        await stage.idle()
        assert stage.app.is_running
        assert stage.chat.transcript()[0].text == "go"


def _boom(*_args):
    raise RuntimeError("it broke")


async def test_a_reply_that_a_crash_cut_off_is_the_tail_and_goes_on(stages, monkeypatch):
    async with stages(limit=40, seed=5) as stage:
        await stage.send("whole")
        whole = stage.texts()[-1]
        await stage.command("/new")
        await _die_after(stage, 15, monkeypatch)
    async with stages(NARROW, limit=40, seed=5, ready=False) as stage:
        await stage.sees("This reply was cut off after", "go on", "■ cut off")
        tail = stage.screen.transcript.views[-1].shown.text
        assert tail
        assert whole.startswith(tail)
        await stage.until(lambda: stage.chat.model is not None)
        await stage.idle()
        await stage.press("enter")
        await stage.until(lambda: stage.texts()[-1:] == [whole], "the very tokens that would have come")
        await stage.idle()
        assert stage.views[-1].markdown.source == plain(whole)
        await stage.sees_not("This reply was cut off")


async def _die_after(stage, count, monkeypatch):
    """Let a reply end as a killed process would leave it: the journal is all that stays."""
    core = stage.chat._core
    journals, left, emit = [], [count], core.emit
    library = type(core.library)
    real = library.begin_journal

    def begin(self, start):
        journals.append(real(self, start))
        return journals[-1]

    def dying(event):
        emit(event)
        left[0] -= isinstance(event, Delta)
        if left[0] == 0:
            for journal in journals:
                journal.close()
            core.place.commit = _boom_commit
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(library, "begin_journal", begin)
        core.emit = dying
        await stage.write("whole")
        await stage.press("enter")
        await stage.until(lambda: stage.screen.prompt.text == "")
        await stage.idle()


def _boom_commit(*_args, **_options):
    raise RuntimeError("killed")


async def test_esc_on_the_offer_leaves_the_reply_as_it_is(stages, monkeypatch):
    async with stages(limit=40, seed=5) as stage:
        await _die_after(stage, 10, monkeypatch)
    async with stages(limit=40, seed=5) as stage:
        await stage.sees("This reply was cut off after")
        await stage.press("escape")
        await stage.idle()
        await stage.sees_not("This reply was cut off")
        assert stage.chat.transcript()[-1].stop == "crashed"
        assert stage.chat.pending_reply() is None


async def test_a_state_that_cannot_be_saved_is_shown_and_the_text_is_kept(stages, monkeypatch):
    from snapshots import Library, StoreFull

    def full(*_args, **_options):
        raise StoreFull("no space")

    async with stages(script={"hello": "Good day.", "more": "And good night."}) as stage:
        with monkeypatch.context() as patch:
            patch.setattr(Library, "save_state", full)
            await stage.send("hello")
            await stage.toast("disk is full")
            await stage.until(lambda: stage.screen.status_line.facts.saved == "not saved")
            assert stage.screen.status_line.facts.alarm
        await stage.send("more")
        await stage.until(lambda: stage.screen.status_line.facts.saved == "saved ✓")
        assert not stage.screen.status_line.facts.alarm


async def test_incognito_says_so_and_offers_nothing_later(stages):
    from app.config import TuiOptions

    async with stages(script={"hello": "Good day."}, tui=TuiOptions(no_save=True)) as stage:
        await stage.sees("nothing is saved")
        await stage.send("hello")
    async with stages() as stage:
        assert stage.views == []


async def test_long_transcripts_paint_their_end_first_and_never_too_much(stages, monkeypatch):
    monkeypatch.setattr("app.tui.transcript.TAIL", 4)
    monkeypatch.setattr("app.tui.transcript.MOST", 6)
    async with stages(limit=1) as stage:
        for number in range(5):
            await asyncio.to_thread(stage.chat.send, f"m{number}")
    async with stages(limit=1) as stage:
        await stage.sees("↑ 6 earlier messages", "❯ m4")
        assert len(stage.screen.transcript.views) == 4
        await stage.send("m5")
        assert stage.texts()[0] == "m3", "what is painted stays painted"
        stage.screen.query_one("Earlier").action_show_earlier()
        await stage.until(lambda: len(stage.screen.transcript.views) == 12)
        assert stage.texts()[0] == "m0"
        await stage.send("m6")
        await stage.sees("↑ 9 earlier messages")
        assert [text for text in stage.texts() if text[0] == "m"] == ["m5", "m6"], "the beginning is put away again"


async def test_a_window_of_20_by_5_still_shows_the_reply_the_prompt_and_what_is_asked(stages):
    async with stages((20, 5), script={"hello": "Good day."}) as stage:
        await stage.send("hello")
        stage.app.clear_notifications()
        await stage.sees("Good day.", "❯ message…", "/4096")
        await stage.press("f1")
        await stage.sees("HELP", "PROMPT", "Enter")
        await stage.press("escape", "ctrl+s")
        await stage.sees("Save as", "name")
        await stage.press("escape", "ctrl+t")
        await stage.sees("◀ he")


async def test_frames_come_and_go_with_the_window_while_a_reply_is_written(stages):
    async with stages((120, 40), limit=60) as stage, stage.mid_reply():
        assert "╭─ CHAT" in stage.seen()
        await stage.pilot.resize_terminal(40, 10)
        await stage.until(lambda: "CHAT" not in stage.seen(), "the frames to go")
        await stage.pilot.resize_terminal(200, 60)
        await stage.sees("╭─ CHAT", "╭─ TREE")


async def test_a_model_that_cannot_be_opened_leaves_room_for_another_one(stages, monkeypatch):
    engine = FakeEngine(script={"hello": "Good day."})

    def fail(*_args, **_options):
        raise FileNotFoundError(2, "No such file or directory", "fake.gguf")

    opens = engine.open_model
    monkeypatch.setattr(engine, "open_model", fail)
    async with stages(engine=engine, ready=False) as stage:
        await stage.sees("No model is open: /model FILE")
        monkeypatch.setattr(engine, "open_model", opens)
        await stage.command("/model other.gguf")
        await stage.sees_not("No model is open")
        await stage.send("hello")
        await stage.sees("Good day.")


async def test_opening_another_model_is_no_step_that_undo_reverses(stages):
    async with stages(script={"hello": "Good day."}) as stage:
        await stage.send("hello")
        await stage.command("/model other.gguf")
        await stage.idle()
        assert not any("/undo returns" in words for words in stage.toasts())
