"""Names, quick saves and REFs: what a person types, and what it means."""

import pytest
from faults.kit import talk

from snapshots import AmbiguousRef, BadName, Message, NameTaken, UnknownName, UnknownRef, tree


@pytest.fixture
def chat(library):
    return library.new_conversation()


@pytest.fixture
def replies(library, chat):
    """Four turns behind a system message; the ends of turns 1 to 4."""
    parent = library.add_node(chat.id, None, Message("system", "s", (1,))).id
    ends = []
    for word in ("one", "two", "three", "four"):
        _, reply = talk(library, chat.id, parent, word)
        parent = reply.id
        ends.append(reply)
    return ends


def test_a_name_is_unique_and_moves_only_by_force(library, replies):
    library.set_name("joke", replies[0].id)
    library.set_name("joke", replies[0].id)
    with pytest.raises(NameTaken) as caught:
        library.set_name("joke", replies[1].id)
    assert caught.value.node_id == replies[0].id
    library.set_name("joke", replies[1].id, force=True)
    assert [(s.name, s.node_id) for s in library.savepoints()] == [("joke", replies[1].id)]
    assert library.names_of(replies[0].id) == []


def test_rename_and_remove(library, replies):
    library.set_name("a", replies[0].id)
    library.set_name("b", replies[1].id)
    with pytest.raises(NameTaken):
        library.rename("a", "b")
    library.rename("a", "c")
    assert library.resolve("c").node.id == replies[0].id
    library.rename("c", "b", force=True)
    assert library.resolve("b").node.id == replies[0].id
    library.remove_name("b")
    assert library.savepoints() == []
    with pytest.raises(UnknownName):
        library.remove_name("b")


def test_an_unknown_name_comes_with_those_that_are_like_it(library, replies):
    library.set_name("before-joke", replies[0].id)
    library.set_name("haiku", replies[1].id)
    with pytest.raises(UnknownName) as caught:
        library.rename("before-jok", "x")
    assert caught.value.nearest == ("before-joke",)
    with pytest.raises(UnknownRef) as found:
        library.resolve("Hiaku~2")
    assert found.value.nearest == ("haiku",)


@pytest.mark.parametrize(
    "name",
    [
        "", "   ", "beef", "DEADBEEF", "12345", "a" * 101, "a\nb", "a\0b", "\x1b[31mred",
        "a\u202eb", "a\u2028b", "\ud800",
        "x~1", "x~", "x@12", "x@", "quick", "HEAD", "-f", "\u200b",
    ],
)  # fmt: skip
def test_names_that_would_mislead_are_refused(library, replies, name):
    with pytest.raises(BadName) as caught:
        library.set_name(name, replies[0].id)
    assert caught.value.why
    assert library.savepoints() == []


@pytest.mark.parametrize(
    "name", ["bee", "pirate voice", "..", "a/b", "CON", "naïve", "日本", "👩‍🚀", "c:\\x", "beefy", "<b>"]
)
def test_names_that_people_use_are_kept(library, replies, name):
    library.set_name(f" {name} ", replies[0].id)
    assert library.names_of(replies[0].id) == [name]
    assert library.resolve(name).node.id == replies[0].id


def test_equal_looking_names_are_one(library, replies):
    library.set_name("cafe\u0301", replies[0].id)
    assert library.resolve("caf\u00e9").node.id == replies[0].id
    assert library.resolve("cafe\u0301").node.id == replies[0].id


def test_a_ref_is_a_name_or_a_prefix_of_an_id(library, replies):
    assert library.resolve(replies[2].id).node == replies[2]
    assert library.resolve(replies[2].id[:10].upper()).node == replies[2]
    assert library.resolve(replies[2].id[:12]).token is None
    with pytest.raises(UnknownRef):
        library.resolve(replies[2].id[:3])
    with pytest.raises(UnknownRef):
        library.resolve("0" * 64)


def test_an_exact_name_beats_an_id_prefix_and_a_step(library, replies, monkeypatch):
    monkeypatch.setattr("snapshots.names.check_name", lambda name: name)  # such names cannot be made by people
    library.set_name(replies[2].id[:8], replies[0].id)
    library.set_name("x~1", replies[1].id)
    assert library.resolve(replies[2].id[:8]).node.id == replies[0].id
    assert library.resolve("x~1").node.id == replies[1].id


def test_a_prefix_of_several_ids_names_them(library, chat):
    with library._db.write() as tx:  # one commit: each alone would wait for the disk
        ids = [tree.put_node(tx, chat.id, None, Message("user", str(i)), "")[0].id for i in range(1300)]
    by_prefix = {}
    for node_id in ids:
        by_prefix.setdefault(node_id[:4], []).append(node_id)
    prefix, twins = next((prefix, found) for prefix, found in by_prefix.items() if len(found) > 1)
    with pytest.raises(AmbiguousRef) as caught:
        library.resolve(prefix)
    assert set(caught.value.candidates) == set(twins)


def test_tilde_steps_back_over_whole_turns(library, replies):
    library.set_name("end", replies[3].id)
    assert library.resolve("end~1").node == replies[2]
    assert library.resolve("end~").node == replies[2]
    assert library.resolve("end~0").node == replies[3]
    assert library.resolve("end~3").node == replies[0]
    assert library.resolve("end~4").node.role == "system"
    question = library.node(replies[3].parent_id)
    assert library.resolve(f"{question.id[:12]}~1").node == replies[2]
    with pytest.raises(UnknownRef) as caught:
        library.resolve("end~5")
    assert "4" in caught.value.why


def test_back_from_the_first_message_is_the_empty_start(library, chat):
    user, reply = talk(library, chat.id, None, "hello")
    assert library.turn_back(reply.id, 1) is None
    assert library.turn_back(user.id, 1) is None
    with pytest.raises(UnknownRef):
        library.turn_back(reply.id, 2)
    with pytest.raises(UnknownRef) as caught:
        library.resolve(f"{reply.id[:8]}~1")
    assert "before the first" in caught.value.why


def test_at_names_a_token_inside(library, replies):
    library.set_name("end", replies[3].id)
    assert library.resolve("end@2").token == 2
    assert library.resolve("end@3").token is None  # all of its three tokens: the node itself
    inside = library.resolve("end~1@0")
    assert (inside.node, inside.token) == (replies[2], 0)
    with pytest.raises(UnknownRef) as caught:
        library.resolve("end@4")
    assert "3 tokens" in caught.value.why


def test_quick_and_head_belong_to_the_last_used_conversation(library, chat, replies):
    with pytest.raises(UnknownRef):
        library.resolve("quick")
    library.quicksave(replies[0].id)
    library.quicksave(replies[1].id)
    assert library.resolve("quick").node == replies[1]
    assert library.resolve("HEAD~1").node == replies[2]
    library.new_conversation()
    with pytest.raises(UnknownRef):
        library.resolve("HEAD")
    assert library.resolve("quick", conversation_id=chat.id).node == replies[1]


def test_the_last_ten_quick_saves_are_kept_each_place_once(library, chat):
    ends, parent = [], None
    for i in range(13):
        _, reply = talk(library, chat.id, parent, f"turn {i}")
        parent = reply.id
        ends.append(reply.id)
        library.quicksave(reply.id)
    library.quicksave(ends[5])
    assert library.quicksaves(chat.id) == [ends[i] for i in (5, 12, 11, 10, 9, 8, 7, 6, 4, 3)]


@pytest.mark.parametrize(
    "ref", ["", " ", "~1", "@3", "a~b", "a~1~1", "a@1~1", "\0", "%", "_" * 300, "x" * 10000, "a@99999999999"]
)
def test_nonsense_is_unknown_and_nothing_else(library, replies, ref):
    with pytest.raises(UnknownRef):
        library.resolve(ref)


def test_the_nearest_name_tells_where_one_is(library, replies):
    assert library.nearest_name(replies[3].id) is None
    library.set_name("old", replies[0].id)
    library.set_name("new", replies[1].id)
    assert library.nearest_name(replies[3].id) == "new"
    assert library.nearest_name(replies[0].id) == "old"
    assert library.nearest_name(None) is None
