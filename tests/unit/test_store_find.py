"""Search: every word of every message that is there, none of what is deleted, whatever state the index is in."""

import json

from faults.kit import talk

from snapshots import Message, StoreReadOnly, find


def found(library, text, **options):
    return [hit.node_id for hit in library.find(text, **options)]


def test_all_words_must_be_there_and_the_last_may_be_a_beginning(library):
    chat = library.new_conversation("tides")
    one = talk(library, chat.id, None, "The lighthouse keeper sings")[0]
    two = talk(library, chat.id, None, "The keeper of bees")[0]
    both = {one.id, two.id}
    assert both <= set(found(library, "KEEPER"))
    assert set(found(library, "keeper light")) == {one.id, library.children(chat.id, one.id)[0].id}
    assert found(library, "keeper moon") == []
    assert (
        library.find("lighthouse")[0].text.startswith("THE LIGHTHOUSE")
        or "lighthouse" in library.find("lighthouse")[0].text
    )


def test_the_newest_come_first_and_the_limit_holds(library):
    chat = library.new_conversation()
    ids = [library.add_node(chat.id, None, Message("user", f"word number {n}")).id for n in range(9)]
    assert found(library, "word") == ids[::-1]
    assert found(library, "word", limit=3) == ids[:-4:-1]


def test_accents_other_scripts_and_parts_of_words_are_found(library):
    chat = library.new_conversation()
    texts = ["Café crème", "海の灯台", "Привет, мир", "a_b%c\\d", "🌊 wave"]
    ids = {text: library.add_node(chat.id, None, Message("user", text)).id for text in texts}
    for query, text in [
        ("cafe", texts[0]),
        ("灯台", texts[1]),
        ("привет", texts[2]),
        ("b%c", texts[3]),
        ("🌊", texts[4]),
    ]:
        assert ids[text] in found(library, query), query
    assert found(library, "afé") == [ids[texts[0]]]
    assert found(library, "%") == [ids[texts[3]]]
    for odd in ("", "   ", '"', "AND OR NOT", "a* NEAR(b)", "x" * 10_000, "'; DROP TABLE nodes; --", "\x00", "\ud800"):
        library.find(odd)
    assert len(library.tree(chat.id)) == 5


def test_what_is_deleted_is_not_found_and_comes_back_with_undo(library):
    chat = library.new_conversation()
    first, second = talk(library, chat.id, None, "zanzibar")
    assert found(library, "zanzibar") == [second.id, first.id]
    library.delete(second.id)
    assert found(library, "zanzibar") == [first.id]
    library.undo()
    library.delete_conversation(chat.id)
    assert found(library, "zanzibar") == []
    library.undo()
    assert len(found(library, "zanzibar")) == 2


def test_names_and_titles_come_before_messages(library):
    chat = library.new_conversation("about harbours")
    first, second = talk(library, chat.id, None, "boats in harbours")
    library.set_name("my harbour", first.id)
    hits = library.find("harbour")
    assert [(hit.node_id, hit.name) for hit in hits[:2]] == [(first.id, "my harbour"), (second.id, "about harbours")]
    assert len({hit.node_id for hit in hits}) == len(hits)


def test_an_index_that_is_damaged_or_gone_is_made_again(library):
    chat = library.new_conversation()
    node = talk(library, chat.id, None, "zanzibar")[0]
    assert node.id in found(library, "zanzibar")
    with library._db.write() as tx:
        tx.execute("UPDATE node_text_data SET block = x'00ff00ff' WHERE id > 1")
    assert node.id in found(library, "zanzibar")
    assert node.id in found(library, "zanzibar")
    with library._db.write() as tx:
        tx.execute("DROP TABLE node_text")
    assert node.id in found(library, "zanzibar")


def test_without_an_index_everything_is_scanned(library, monkeypatch):
    chat = library.new_conversation()
    node = talk(library, chat.id, None, "zanzibar island")[0]
    monkeypatch.setattr(find, "_make", lambda tx: False)
    assert node.id in found(library, "zanzi")
    library._db.read_only = StoreReadOnly("for this test")
    assert node.id in found(library, "island")


def test_find_and_diff_on_the_command_line(call, chats):
    chat = chats(script={"why?": "Because.", "how?": "Like this.", "when?": "Soon."})
    chat.send("why?")
    chat.save("fork here")
    chat.send("how?")
    chat.save("left")
    chat.restore("fork here")
    chat.send("when?")
    chat.save("right")
    chat.close()
    out = json.loads(call("find", "because", "--json")[1])
    assert [hit["role"] for hit in out] == ["assistant"]
    assert "Nothing holds" in call("find", "xyzzy")[1]
    assert "★ left" in call("find", "left")[1]
    told = json.loads(call("diff", "left", "right", "--json")[1])
    assert [row["text"] for row in told["a"]] == ["how?", "Like this."]
    assert [row["text"] for row in told["b"]] == ["when?", "Soon."]
    assert told["common"]["turn"] == 1
    assert told["common_tokens"] >= told["common"]["n_tokens"]
    out = call("diff", "left", "right")[1]
    assert "part behind" in out
    assert "❯ how?" in out
    assert call("diff", "left", "left")[0] == 0
    assert call("diff", "left", "nowhere")[0] == 6


def test_where_the_index_finds_no_room_everything_is_scanned(library):
    chat = library.new_conversation()
    node = talk(library, chat.id, None, "zanzibar island")[0]
    with library._db.read() as tx:
        tx.execute("PRAGMA max_page_count=1")  # no page more than there are
    assert node.id in found(library, "zanzi")
    with library._db.read() as tx:
        assert find.is_behind(tx)
        tx.execute("PRAGMA max_page_count=1000000")
    assert node.id in found(library, "zanzi")
    with library._db.read() as tx:
        assert not find.is_behind(tx)


def test_more_messages_than_one_change_takes_are_indexed_all_the_same(library, monkeypatch):
    chat = library.new_conversation()
    monkeypatch.setattr(find, "_CATCH_UP", 2)
    parent = None
    for number in range(5):
        parent = library.add_node(chat.id, parent, Message("user", f"lighthouse {number}", (number,))).id
    library.index_text()
    assert len(library.find("lighthouse")) == 5
