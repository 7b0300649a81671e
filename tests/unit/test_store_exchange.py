"""Export files: what travels, what meets what is here already, and what is refused without a trace."""

import io
import json
import struct
from hashlib import blake2b

import pytest
from faults.kit import KEY, open_library, save, talk

from snapshots import BadExport, Message, ModelInfo, StoreReadOnly, UnknownNode, carrying, exchange, frames
from snapshots.ids import canonical, node_id, pack_tokens

MODEL = ModelInfo(KEY, "prompt", "tiny", "/home/somebody/tiny.gguf", {"tensors": "t"}, {"template": "x"})


@pytest.fixture
def here(tmp_path):
    with open_library(tmp_path / "here") as library:
        yield library


@pytest.fixture
def there(tmp_path):
    with open_library(tmp_path / "there") as library:
        yield library


@pytest.fixture
def told(here):
    """A conversation with two branches behind one question; gives the library, its id and the nodes by name."""
    chat = here.new_conversation("tides", template_date="2026-01-02")
    here.remember_model(MODEL)
    first, reply = talk(here, chat.id, None, "why tides?", sampler={"temperature": 0.7, "stop": ["x"]})
    left = talk(here, chat.id, reply.id, "and the sun?")[1]
    right = talk(here, chat.id, reply.id, "and ünïcode 🌊?")[1]
    here.set_name("left", left.id)
    save(here, here.tokens(left.id), left.id)
    return {"chat": chat.id, "first": first.id, "reply": reply.id, "left": left.id, "right": right.id}


def exported(library, node, scope="savepoint"):
    return b"".join(library.export(node, scope))


def arrive(library, data, **options):
    return library.import_stream(io.BytesIO(data), **options)


def contents(library, chat):
    return {twig.id: library.node(twig.id)[:-1] for twig in library.tree(chat)}  # all but when it was made


@pytest.mark.parametrize(("scope", "messages"), [("savepoint", 2), ("tree", 6), ("conversation", 6)])
def test_what_is_exported_arrives_with_its_ids_names_and_digests(here, there, told, scope, messages):
    arrival = arrive(there, exported(here, told["reply"], scope), source="a file")
    assert (arrival.messages, arrival.added, arrival.node_id) == (messages, messages, told["reply"])
    assert there.conversation(told["chat"])[:2] == (told["chat"], "tides")
    assert there.conversation(told["chat"]).template_date == "2026-01-02"
    wanted = contents(here, told["chat"])
    assert contents(there, told["chat"]) == {key: wanted[key] for key in contents(there, told["chat"])}
    assert len(there.tree(told["chat"])) == messages
    assert there.origins([told["first"]])[told["first"]][::2] == ("a file", "")
    assert there.start_position().node_id == told["reply"]
    if messages == 6:
        assert [s.node_id for s in there.savepoints()] == [told["left"]]
        (row,) = there.node_states(told["left"])
        assert (row.state_key, row.logits_digest) == (KEY, here.node_states(told["left"])[0].logits_digest)
        assert not row.has_bundle  # what a stranger claims is a digest to compare with, never a state
        assert there.model_info(KEY) == MODEL._replace(path="")
        assert there.load_state(KEY, there.tokens(told["left"])).n_valid == 0


def test_a_path_holds_no_sibling_and_no_path_of_this_machine(here, told):
    data = exported(here, told["left"])
    records = list(exchange.read(io.BytesIO(data)))
    node, model = exchange.NODE, exchange.MODEL
    assert [r.kind for r in records] == [exchange.HEAD, node, node, node, model, node]
    assert all(b"somebody" not in canonical(dict(r.values)) for r in records)


def test_importing_again_changes_nothing_and_branches_meet(here, there, told):
    arrive(there, exported(here, told["left"]))
    before = there.tree(told["chat"])
    again = arrive(there, exported(here, told["left"]))
    assert (again.added, again.names, there.tree(told["chat"])) == (0, (), before)
    more = arrive(there, exported(here, told["right"]))
    assert (more.messages, more.added) == (4, 2)
    assert there.start_position().node_id == told["left"]  # whoever stands somewhere stays there
    back = arrive(here, exported(there, told["left"], "conversation"))
    assert back.added == 0
    assert here.origins([told["left"]]) == {}  # made here, whatever file it comes back in


def test_a_name_that_is_taken_gets_a_number(here, there, told):
    chat = there.new_conversation()
    own = talk(there, chat.id, None, "mine")[1]
    there.set_name("left", own.id)
    arrival = arrive(there, exported(here, told["left"]))
    assert (arrival.names, arrival.renamed) == (("left-2",), {"left": "left-2"})
    assert {s.name: s.node_id for s in there.savepoints()} == {"left": own.id, "left-2": told["left"]}


def test_an_import_is_undone_and_redone_names_and_all(here, there, told):
    chat = there.new_conversation("other")
    talk(there, chat.id, None, "mine")
    arrive(there, exported(here, told["left"], "conversation"))
    assert there.undo().kind == "import"
    assert (there.tree(told["chat"]), there.savepoints()) == ([], [])
    there.redo()
    assert (len(there.tree(told["chat"])), [s.name for s in there.savepoints()]) == (6, ["left"])


def test_what_was_deleted_comes_back_with_an_import(here, told):
    data = exported(here, told["left"], "conversation")
    here.delete(told["reply"])
    assert arrive(here, data).added == 5
    assert len(here.tree(told["chat"])) == 6
    here.delete_conversation(told["chat"])
    arrive(here, data)
    assert [c.id for c in here.conversations()] == [told["chat"]]


def test_a_stream_that_comes_in_drops_is_read(here, there, told):
    class Drops(io.BytesIO):
        def read(self, count=-1):
            return super().read(min(count, 3))

    assert there.import_stream(Drops(exported(here, told["left"]))).added == 4


def test_large_exports_are_cut_into_blocks_and_large_messages_are_whole(here, there):
    chat = here.new_conversation()
    parent = None
    for turn in range(30):
        text = blake2b(str(turn).encode(), digest_size=64).hexdigest() * 100
        tokens = tuple(range(turn, turn + 20_000))
        parent = here.add_node(chat.id, parent, Message("raw", text, tokens)).id
    wide = here.add_node(chat.id, parent, Message("user", "x" * 3_000_000, tuple(range(70_000, 200_000))))
    data = exported(here, wide.id)
    assert len(data) < 3_000_000
    arrive(there, data)
    assert there.path(wide.id)[-1][:14] == wide[:14]
    assert there.tokens(wide.id) == here.tokens(wide.id)


# ------------------------------------------------------------------------------------------------------ what is refused


def refused(library, data, words=None):
    with pytest.raises(BadExport, match=words or None):
        arrive(library, data)
    assert library.conversations() == []


def test_every_bit_counts(here, there, told):
    data = bytearray(exported(here, told["reply"]))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadExport):
            list(there.read_export(io.BytesIO(bytes(data))))
        data[bit // 8] ^= 1 << bit % 8
    assert arrive(there, bytes(data)).added == 2


def test_every_length_but_the_right_one_is_refused(here, there, told):
    data = exported(here, told["reply"])
    for length in range(len(data)):
        with pytest.raises(BadExport):
            list(there.read_export(io.BytesIO(data[:length])))
    for tail in (b"\0", b"forkpoint", data):
        refused(there, data + tail, "follows its end")


def test_another_version_and_another_kind_of_file_are_named(there):
    refused(there, b"forkpoint export 2\n" + b"x" * 100, "newer")
    for data in (b"", b"PK\3\4", b"GGUF" * 30, b"\x80\x04\x95", b"{}", b"forkpoint export"):
        refused(there, data, "no export|cut short")


def sealed(*records):
    """An export file whose digests are right, whatever its records say."""
    return b"".join(exchange.write(records))


CHAT = "c" * 64
HEAD = exchange.Record(
    exchange.HEAD,
    {"what": "savepoint", "conversation": CHAT, "title": "t", "template_date": "", "created": 1.0, "at": "?"},
)


def message(parent=None, text="hi", tokens=(1, 2), keep=0, **changes):
    content = Message("user", text, tuple(tokens), sampler={"top_k": 1})
    values = {
        "id": node_id(parent or CHAT, content, keep), "parent": parent, "role": "user", "keep": keep, "stop": "",
        "sampler": {"top_k": 1}, "dice": "", "prompt_key": "", "state_key": "", "created": 1.0, "names": [],
        "states": [],
    }  # fmt: skip
    return exchange.Record(exchange.NODE, {**values, **changes}, text, pack_tokens(tokens))


def headed(*records, **changes):
    at = records[-1].values.get("id", "?") if records else "?"
    return sealed(HEAD._replace(values={**HEAD.values, "at": at, **changes}), *records)


def test_the_kit_of_these_tests_makes_good_files(there):
    first = message()
    second = message(first.values["id"], "more", keep=2)
    assert arrive(there, headed(first, second)).added == 2


LIES = [
    ("id", "0" * 64, "not what its id says"),
    ("id", "../../etc/passwd", ""),
    ("id", 5, ""),
    ("parent", "1" * 64, "comes before"),
    ("parent", [], ""),
    ("role", "root", ""),
    ("role", ["user"], ""),
    ("keep", -1, ""),
    ("keep", 5, ""),
    ("keep", 0.0, ""),
    ("keep", True, ""),
    ("keep", 10**30, ""),
    ("stop", "x" * 1000, ""),
    ("stop", None, ""),
    ("sampler", [1], ""),
    ("sampler", None, ""),
    ("sampler", {"top_k": 2}, "not what its id says"),
    ("dice", "xyz", ""),
    ("dice", "00", "not what its id says"),
    ("created", "now", ""),
    ("created", True, ""),
    ("prompt_key", 7, ""),
    ("names", "abc" * 100, ""),
    ("names", [1], ""),
    ("names", None, ""),
    ("states", [["a"]], ""),
    ("states", {"a": "b"}, ""),
    ("states", 3, ""),
    ("count", 4, ""),
    ("count", -1, ""),
    ("first", "x", ""),
]


@pytest.mark.parametrize(("field", "value", "words"), LIES)
def test_a_message_that_lies_is_refused_though_every_digest_holds(there, field, value, words):
    bad = message()
    refused(there, headed(bad._replace(values={**bad.values, field: value}), at=message().values["id"]), words)


def test_a_missing_field_is_no_reason_to_stumble(there):
    good = message()
    for field in good.values:
        values = {key: value for key, value in good.values.items() if key != field}
        refused(there, headed(good._replace(values=values), at=good.values["id"]))
    for field in HEAD.values:
        values = {key: value for key, value in HEAD.values.items() if key != field and key != "created"}
        if field != "created":
            refused(there, sealed(HEAD._replace(values=values), good))


def test_records_out_of_place_are_refused(there):
    good = message()
    refused(there, sealed(), "does not hold")
    refused(there, sealed(good), "begin")
    refused(there, headed(good, good), "twice")
    refused(there, headed(good, at="1" * 64), "does not hold")
    refused(there, headed(good, HEAD, at=good.values["id"]), "begin")
    refused(there, headed(good, conversation="d" * 64), "not what its id says")
    refused(there, headed(good, what="replay"), "--replay")
    refused(there, headed(good._replace(tokens=b"\3abc")))
    refused(there, headed(good._replace(tokens=b"\4abc")))


def test_kinds_of_records_that_are_not_known_are_passed_over(there):
    good = message()
    assert arrive(there, headed(exchange.Record(77, {"new": 1}, "x", b"y"), good)).added == 1


def block(content, packed=False, claimed=None, key=None):
    """One block behind the opening line, with a right digest."""
    body = frames.compress(content) if packed else content
    head = struct.pack("<BII", packed, len(body), len(content) if claimed is None else claimed)
    key = key or blake2b(exchange.OPENING, digest_size=16).digest()
    return head + body + blake2b(head + body, digest_size=16, key=key).digest()


def test_claims_are_refused_before_memory_is_taken_for_them(there):
    for claim in (1 << 25, (1 << 32) - 1):
        refused(there, exchange.OPENING + struct.pack("<BII", 0, claim, claim), "too large")
        refused(there, exchange.OPENING + block(b"x" * 100, packed=True, claimed=claim), "large|opens")
        refused(there, exchange.OPENING + block(struct.pack("<BIII", 3, claim, 0, 0)), "too large")
    refused(there, exchange.OPENING + block(b"\0" * (1 << 24), packed=True), "opens to far more")
    refused(there, exchange.OPENING + block(b"x" * 100, packed=True, claimed=99), "another size")
    refused(there, exchange.OPENING + block(b"x" * 10, claimed=9), "too large")
    refused(there, exchange.OPENING + block(struct.pack("<BIII", 3, 50, 0, 0) + b"{}"), "cut short")
    refused(there, exchange.OPENING + block(b""), "too many pieces")


@pytest.mark.parametrize(
    "text", ["[" * 60_000, '{"a":' * 10_000, "[]", "3", "nul", '{"a": NaN}', '{"a": 1e999}', "9" * 60_000, "\ud800"]
)
def test_json_that_is_deep_endless_or_none_is_refused(there, text):
    raw = text.encode("utf-8", "surrogatepass")
    refused(there, exchange.OPENING + block(struct.pack("<BIII", 1, len(raw), 0, 0) + raw))


def test_a_library_that_can_only_be_read_takes_nothing(here, told, tmp_path):
    data = exported(here, told["left"])
    with open_library(tmp_path / "third") as third:
        third._db.read_only = StoreReadOnly("for this test")
        with pytest.raises(StoreReadOnly):
            arrive(third, data)


def test_what_is_not_there_cannot_be_exported(here):
    with pytest.raises(UnknownNode):
        list(here.export("0" * 64))


def test_a_message_beyond_all_limits_is_not_exported(here):
    chat = here.new_conversation()
    node = here.add_node(chat.id, None, Message("user", "x" * (exchange.TEXT_LIMIT + 1)))
    with pytest.raises(BadExport):
        list(here.export(node.id))


def test_the_committed_file_of_version_1_still_reads(there, repo_root):
    data = (repo_root / "tests" / "fixtures" / "lighthouse.export").read_bytes()
    assert blake2b(data, digest_size=16).hexdigest() == "859808bae6a605d93375521634f6a8be"
    arrival = arrive(there, data)
    assert (arrival.messages, arrival.added, arrival.names) == (6, 6, ("harbour", "two", "three"))
    assert [n.role for n in there.path(arrival.node_id)] == ["user", "assistant"] * 2
    assert json.dumps(there.node(arrival.node_id).text)[:20] == '"I am sorry. I am a '


def test_streams_whose_digests_hold_and_whose_records_do_not_are_refused(there):
    def raw(record):
        values = canonical(dict(record.values))
        return struct.pack("<BIII", record.kind, len(values), 0, 0) + values

    end = exchange.Record(exchange.END, {"records": 0})
    refused(there, exchange.OPENING + block(raw(end) + raw(end)), "follows its end")
    refused(there, exchange.OPENING + block(raw(end)[:7]), "cut short")
    refused(there, exchange.OPENING + block(raw(end._replace(values={"records": 2}))), "records are missing")


def test_more_messages_than_an_export_may_hold_are_refused(there, monkeypatch):
    monkeypatch.setattr(exchange, "NODES_LIMIT", 1)
    first = message()
    refused(there, headed(first, message(first.values["id"], "more", keep=2)), "too many messages")


def test_where_every_number_behind_a_name_is_taken_the_message_comes_without(here, there, told, monkeypatch):
    monkeypatch.setattr(carrying, "_TRIES", 3)
    chat = there.new_conversation()
    for name in ("left", "left-2"):
        there.set_name(name, talk(there, chat.id, None, name)[1].id)
    arrival = arrive(there, exported(here, told["left"]))
    assert (arrival.added, arrival.names, arrival.renamed) == (4, (), {})
    assert [s.name for s in there.savepoints() if s.node_id == told["left"]] == []


def test_a_reply_that_is_left_out_where_nothing_may_be_is_refused(there):
    first = message()
    content = Message("assistant", "", (), stop="stop", sampler={"top_k": 1})
    parent = first.values["id"]
    for claimed in (node_id(parent, content, 2), "e" * 64):
        left_out = message(parent, "", (), 2, id=claimed, role="assistant", stop="stop", count=4, first=7)
        refused(there, headed(first, left_out))
