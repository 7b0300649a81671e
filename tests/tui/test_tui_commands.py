"""The registry: slash commands, completion, palette, help and keys say the same."""

import pytest

from app.commands import BY_NAME, COMMANDS, complete, key_words, parse, rank
from app.events import TreeRow
from app.tui import do_model, do_savepoints, do_talk  # noqa: F401 - they register what commands do
from app.tui.deeds import DEEDS
from app.tui.themes import remembered_theme
from app.tui.tree_layout import lines, tip_below
from tests.tui.stage import NARROW, WIDE


def test_every_command_does_something_and_nothing_else_does():
    assert set(DEEDS) == set(BY_NAME)


def test_no_key_is_taken_twice_and_none_is_one_that_terminals_confuse():
    keys = [key for command in COMMANDS for key in command.keys]
    assert len(keys) == len(set(keys))
    assert not {"ctrl+m", "ctrl+i", "ctrl+h"} & set(keys)


def test_the_issues_commands_are_there():
    wanted = "save load fork tree name undo redo back rewind regen edit continue delete system set model stats copy"
    assert {*wanted.split(), "theme", "new", "help", "quit"} <= {c.name for c in COMMANDS if c.slash}


def test_parse_tells_commands_from_messages_and_paths():
    assert parse("hello") is None
    assert parse("/etc/passwd is a file") is None
    assert parse("// a comment") is None
    assert parse(" /save").command is BY_NAME["save"], "white space in front is no part of a message either"
    assert parse("/save my name").argument == "my name"
    assert parse("/SAVE x").command is BY_NAME["save"]
    assert parse("/laod x").command is None
    assert parse("/laod x").nearest == "load"
    assert parse("/save-as").command is None, "a command without a slash form"


def test_completion_ranks_the_start_before_the_middle_before_scattered_letters():
    assert rank("st", ["first", "stats", "set"]) == ["stats", "first", "set"]
    assert complete("re")[0].name in {"redo", "regen", "rewind"}
    assert [c.name for c in complete("hlp")] == ["help"]


def test_key_words_are_what_people_write():
    assert [key_words(k) for k in ("ctrl+s", "f5", "r", "left_square_bracket", "escape")] == [
        "Ctrl+S",
        "F5",
        "r",
        "[",
        "Esc",
    ]


def _row(node, parent, *, labels=(), here=False, role="assistant"):
    return TreeRow(node, parent, 0, role, node, 1, 10, labels, here, here, None)


def test_the_tree_draws_ends_forks_and_names_and_passes_over_the_rest():
    rows = [
        _row("q1", None, role="user"),
        _row("r1", "q1", labels=("intro",)),
        _row("q2", "r1", role="user"),
        _row("r2", "q2"),
        _row("q3", "r2", role="user"),
        _row("r3", "q3", here=True),
        _row("r3b", "q3"),
        _row("q4", "r1", role="user"),
        _row("r4", "q4"),
    ]
    drawn = [(line.rails, line.mark, line.row.node_id) for line in lines(rows)]
    assert drawn == [
        ("", "○", "q1"),
        ("", "★", "r1"),
        ("├─┬ ", "○", "q3"),
        ("│ ├─", "●", "r3"),
        ("│ └─", "○", "r3b"),
        ("└─", "○", "r4"),
    ]


def test_the_tip_is_the_end_of_the_newest_branch():
    rows = [_row("a", None), _row("b", "a"), _row("c", "b"), _row("d", "a"), _row("e", "d")]
    assert tip_below(rows, "a") == "e"
    assert tip_below(rows, "b") == "c"
    assert tip_below(rows, "e") == "e"


async def test_slash_lists_commands_and_tab_completes(stages):
    async with stages(NARROW) as stage:
        await stage.write("/")
        await stage.sees("/save [name]", "/load [savepoint]", "F5")
        await stage.write("the")
        await stage.sees("/theme [theme]")
        await stage.press("tab")
        assert stage.screen.prompt.text == "/theme "
        await stage.sees("forkpoint-light")
        await stage.write("nord")
        await stage.press("enter")
        await stage.until(lambda: stage.app.theme == "nord")
        assert not stage.screen.completion.display
    assert remembered_theme() == "nord", "the next start has it too"


async def test_enter_on_half_a_command_completes_and_runs_it(stages):
    async with stages() as stage:
        await stage.write("/hel")
        await stage.press("enter")
        assert stage.screen.prompt.text == "/help " or "HELP" in stage.seen()
        await stage.press("enter")
        await stage.sees("HELP", "PROMPT")


async def test_help_and_palette_list_every_command(stages):
    async with stages(WIDE) as stage:
        await stage.press("f1")
        await stage.sees("HELP", "SAVEPOINTS", "Ctrl+J, Shift+Enter")
        page = str(stage.app.screen.query_one("#page").render())
        for command in COMMANDS:
            assert (command.usage if command.slash else command.title) in page
        await stage.press("escape")
        await stage.sees_not("HELP")
        await stage.press("ctrl+p")
        await stage.sees("Search for commands", "Save  F5")
        await stage.write("tree of")
        await stage.sees("Tree  Ctrl+T")
        await stage.press("enter")
        await stage.until(lambda: stage.screen.tree_panel.has_focus)


async def test_stats_set_model_and_system_answer_in_the_transcript(stages):
    async with stages(script={"hello": "Good day."}) as stage:
        await stage.send("hello")
        await stage.command("/stats")
        await stage.sees("last reply", "tok/s", "conversations")
        await stage.command("/set")
        await stage.sees("temperature", "top_k")
        await stage.command("/model")
        await stage.sees("fake.gguf", "4096 tokens")
        await stage.command("/system")
        await stage.sees("There is no system prompt")
        await stage.command("/system You are a pirate.")
        await stage.sees("§ You are a pirate.")


async def test_a_theme_that_there_is_not_is_said_and_the_one_before_stays(stages):
    async with stages() as stage:
        await stage.command("/theme nord")
    async with stages(theme="nrod") as stage:
        await stage.toast("no theme “nrod”")
        assert stage.app.theme == "nord"


async def test_themes_are_tried_on_and_esc_puts_the_old_one_back(stages):
    async with stages() as stage:
        await stage.command("/theme")
        await stage.sees("Theme", "gruvbox")
        await stage.press("down", "down")
        await stage.until(lambda: stage.app.theme != "forkpoint")
        await stage.press("escape")
        await stage.until(lambda: stage.app.theme == "forkpoint")


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [("é 日本", ("é", "日本")), (r"\n", ("\n",)), (r"a\sb \x3a", ("a b", ":")), (r"\\n", (r"\n",)), ("none", ()),
     (r"\u00e9\q", ("é\\q",)), (r"\ud800", ("?",))],
)  # fmt: skip
def test_texts_of_a_setting_are_read_as_they_are_meant(typed, wanted):
    from app.tui.do_model import _read

    assert _read(typed, ()) == wanted
