"""Rows 7 and 8 of the battery for the files beside tree.db and the states: journals, exports, copies, the config file.

Every bit flipped, every length cut, bytes added, pages of zeros, two files in each other's place, an older version of
a file: each is refused, harmless or said; what it leaves is a part of what was written, never anything else.
"""

import io
import random
import shutil
import sqlite3

import pytest
from golden.make_library import build, told

from app.config import Config, ConfigError, load_config
from faults.kit import open_library, talk
from faults.report import report
from faults.test_database_bits import facts
from snapshots import BadExport, ReplyStart, StoreError, carrying
from snapshots.fsck import fsck


def flips(data, step=1):
    for bit in range(0, 8 * len(data), step):
        yield data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def cuts(data, step=1):
    """Every shorter file, longer ones, and zeros from anywhere on, as a torn write leaves them."""
    yield from (data[:length] for length in range(0, len(data), step))
    yield from (data + tail for tail in (b"\0", data, b"\xff" * 4096))
    yield from (data[:start] + b"\0" * (len(data) - start) for start in range(0, len(data), 16))


# ----------------------------------------------------------------------------------------------------------- journals

TOKENS = ([10, 11, 12], [13], [14, 15, 16, 17])


def write_journal(library, chat, text="said "):
    """A journal of three records whose process died; gives its path and what it held after each record."""
    journal = library.begin_journal(ReplyStart(chat.id, None, dice_key=b"d" * 16))
    versions = [journal.path.read_bytes()]
    for tokens in TOKENS:
        journal.append(tokens, text)
        versions.append(journal.path.read_bytes())
    journal.close()
    return journal.path, versions


PREFIXES = {sum((tuple(part) for part in TOKENS[:n]), ()): "said " * n for n in range(4)}


def judge_journal(home, library, path, bad):
    """What a changed journal gives: the reply, its beginning, or nothing while the file stays and fsck names it."""
    path.write_bytes(bad)
    found = library.dead_replies()
    if not found:
        assert path.read_bytes() == bad  # nothing of a reply is thrown away unseen
        return "named" if fsck(home / "data", home / "cache").problems else "silent"
    (reply,) = found
    assert reply.text == PREFIXES[reply.tokens]
    assert reply.start.dice_key == b"d" * 16
    if len(reply.tokens) == 8:
        return "harmless"
    return "cut"  # computing goes on from there, with the same dice: the same tokens come again


def damage_a_journal(home, changes, step):
    with open_library(home) as library:
        path, versions = write_journal(library, library.new_conversation())
        kinds = [judge_journal(home, library, path, bad) for bad in changes(versions[-1], step)]
        assert judge_journal(home, library, path, versions[-1]) == "harmless"
    figures = {kind: kinds.count(kind) for kind in ("named", "cut", "harmless", "silent")}
    report(7 if changes is flips else 8, role="journal", tried=len(kinds), **figures)
    assert figures["named"]
    assert figures["cut"]
    assert not figures["silent"]
    return figures


def test_a_damaged_journal_gives_a_beginning_of_its_reply_or_is_kept_and_named(tmp_path):
    assert damage_a_journal(tmp_path / "bits", flips, 13)["harmless"] == 0
    damage_a_journal(tmp_path / "lengths", cuts, 3)


@pytest.mark.soak
@pytest.mark.parametrize("changes", [flips, cuts])
def test_every_damaged_journal_gives_a_beginning_of_its_reply_or_is_kept_and_named(changes, tmp_path):
    damage_a_journal(tmp_path, changes, 1)


def test_an_older_version_of_a_journal_is_a_beginning(tmp_path):
    with open_library(tmp_path) as library:
        path, versions = write_journal(library, library.new_conversation())
        for number, old in enumerate(versions):
            path.write_bytes(old)
            assert [len(reply.tokens) for reply in library.dead_replies()] == [[0, 3, 4, 8][number]]


def test_journals_in_each_others_place_are_kept_and_named(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation()
        one, two = (write_journal(library, chat)[0] for _ in range(2))
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)
        assert library.dead_replies() == []
        assert {problem.key for problem in fsck(tmp_path / "data", tmp_path / "cache").problems} == {one.name, two.name}
        fsck(tmp_path / "data", tmp_path / "cache", repair=True)
        kept = [path.read_bytes() for path in (tmp_path / "data" / "damaged").iterdir()]
        assert sorted(kept) == sorted([first, second])
        assert fsck(tmp_path / "data", tmp_path / "cache").problems == []


# ------------------------------------------------------------------------------------------------------------ exports


@pytest.mark.parametrize("changes", [flips, cuts])
def test_every_damaged_export_is_refused(changes, tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation("tides")
        _, reply = talk(library, chat.id, None, "why")
        library.set_name("here", reply.id)
        data = b"".join(library.export(reply.id))
        tried = 0
        for bad in changes(data):
            with pytest.raises(BadExport):
                list(carrying.parse(io.BytesIO(bad)))
            tried += 1
        assert len(list(carrying.parse(io.BytesIO(data)))) == 3
    report(7 if changes is flips else 8, role="export", tried=tried, rejected=tried, silent=0)


# ------------------------------------------------------------------------------------------------------------- copies


def broken_copies(data, dice, count):
    for _ in range(count):
        kind = dice.choice(("flip", "cut", "append", "zero page"))
        at = dice.randrange(len(data))
        page = at // 4096 * 4096
        yield {
            "flip": data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :],
            "cut": data[:at],
            "append": data + bytes(dice.randrange(9000)),
            "zero page": data[:page] + bytes(4096) + data[page + 4096 :],
        }[kind]


def repair_from_a_damaged_copy(tmp_path, count, seed):
    """tree.db is lost, the newest copy is damaged: nothing that a repair takes from it is wrong."""
    home, tree = tmp_path / "home", tmp_path / "home" / "data" / "tree.db"
    with open_library(home) as library:
        build(library)
        library.back_up(now=True)
        known = {fact for fact in facts(told(library)) if not is_mended(fact)}
    (copy,) = (home / "data" / "backups").iterdir()
    good, whole = copy.read_bytes(), 0
    for bad in broken_copies(good, random.Random(seed), count):
        copy.write_bytes(bad)
        tree.write_bytes(b"no longer a database")
        shutil.rmtree(home / "data" / "damaged", ignore_errors=True)
        assert fsck(home / "data", home / "cache", repair=True).left == 0
        with open_library(home) as library:
            found = {fact for fact in facts(told(library)) if not is_mended(fact)}
        assert found <= known, found - known
        whole += found == known
    return {"tried": count, "whole": whole, "partly": count - whole, "wrong": 0}


def is_mended(fact):
    """What a repair says of its own: a conversation whose row is lost has another title and stands elsewhere."""
    return fact.startswith(('["conversation"', '["twig"', '["log"', '["quick"'))


def test_a_repair_takes_nothing_wrong_from_a_damaged_copy(tmp_path):
    report("7, 8", role="backup", **repair_from_a_damaged_copy(tmp_path, 40, 1))


@pytest.mark.soak
@pytest.mark.parametrize("share", range(4))
def test_a_repair_takes_nothing_wrong_from_two_thousand_damaged_copies(share, tmp_path):
    report("7, 8", role="backup", share=share, **repair_from_a_damaged_copy(tmp_path, 500, 10 + share))


def test_an_older_copy_in_the_place_of_the_library_is_an_older_library(tmp_path):
    """Nothing in one file can tell that it is old; it is whole, and says only what was true."""
    with open_library(tmp_path) as library:
        chat = library.new_conversation("x")
        _, first = talk(library, chat.id, None, "one")
        old = (tmp_path / "data" / "tree.db").read_bytes()
        talk(library, chat.id, first.id, "two")
    (tmp_path / "data" / "tree.db").write_bytes(old)
    with open_library(tmp_path) as library:
        assert [node.text for node in library.path(library.conversation(chat.id).head_id)] == ["one", "ONE"]
    assert fsck(tmp_path / "data", tmp_path / "cache").problems == []


def test_an_old_rollback_journal_beside_the_library_gives_old_pages_or_none(tmp_path):
    """SQLite rolls back a hot journal that a copy brought: what that leaves is checked like anything else."""
    home, tree = tmp_path, tmp_path / "data" / "tree.db"
    with open_library(home) as library:
        build(library)
        was = facts(told(library))
    other = sqlite3.connect(tree, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE settings SET value = 'x'")
    other.execute("PRAGMA cache_spill=1")
    other.execute("UPDATE nodes SET turn = turn")
    hot = (tree.with_name("tree.db-journal")).read_bytes()
    other.execute("ROLLBACK")
    other.close()
    with open_library(home) as library:
        talk(library, library.conversations()[0].id, None, "one more")
        now = facts(told(library))
    data = tree.read_bytes()
    for bad in (hot, hot[:512], bytes(512), b"\xff" * 4096, hot[: len(hot) // 2], b""):
        tree.write_bytes(data)
        tree.with_name("tree.db-journal").write_bytes(bad)
        try:
            with open_library(home) as library:
                found = facts(told(library))
        except StoreError:
            continue
        assert found <= was | now or fsck(home / "data", home / "cache").problems


# ------------------------------------------------------------------------------------------------------------- config

CONFIG = b"""model = "tiny.gguf"
threads = 2
context = 4096
cache-type = "f16"
quota = "20 GB"
autosave = true
[sampler]
temperature = 0.7
top_k = 20
"""


def test_every_damaged_config_file_is_read_or_refused_in_a_sentence(tmp_path):
    path, tried, refused = tmp_path / "config.toml", 0, 0
    for changes in (flips, cuts):
        for bad in changes(CONFIG):
            path.write_bytes(bad)
            tried += 1
            try:
                assert isinstance(load_config(tmp_path), Config)
            except ConfigError:
                refused += 1
    digits = "9" * 5000
    for odd in (f'quota = "{digits} TB"', 'model = "\\u0000"', f"threads = {digits}", "a" + ".a" * 5000 + "=1"):
        path.write_text(odd)
        tried += 1
        try:
            load_config(tmp_path)
        except ConfigError:
            refused += 1
    report("7, 8", role="config", tried=tried, refused=refused)
    assert 0 < refused < tried
