"""Libraries of every format that was released, as their programs left them: each is read whole, today and later."""

import json
import os
import sqlite3
import tarfile

import pytest
from faults.kit import KEY, assert_true, open_library
from golden.make_library import HERE, told

from snapshots import schema
from snapshots.errors import LibraryDamaged
from snapshots.fsck import fsck

FORMATS = sorted(path.name[: -len(".tar.gz")] for path in HERE.glob("format-*.tar.gz"))


def unpack(name, folder):
    with tarfile.open(HERE / f"{name}.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    return json.loads((HERE / f"{name}.json").read_text())


def test_there_is_a_golden_library_of_every_format():
    assert [f"format-{number}" for number in range(1, schema.FORMAT + 1)] == FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_a_library_of_each_format_says_what_it_said(name, tmp_path):
    expected = unpack(name, tmp_path)
    for _ in range(2):  # while it is brought up to date, and after
        with open_library(tmp_path) as library:
            assert told(library) == expected
            (dead,) = library.dead_replies()
            assert (dead.tokens, dead.text) == ((4, 5, 6), "three words so")
            states = [s for t in expected.values() if "states" in t for each in t["states"].values() for s in each]
            assert len(states) == 3
            for node_id, key, *_ in states:
                tokens = library.tokens(node_id)
                state = library.load_state(key, tokens)
                assert state.rung == "bundle"
                assert_true(state, tokens)
            assert not library.read_only
            library.remember_setting("model", expected["settings"]["model"])
    with sqlite3.connect(tmp_path / "data" / "tree.db") as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (schema.FORMAT,)


@pytest.mark.parametrize("name", FORMATS[:-1])
def test_what_was_there_before_a_migration_is_kept_beside_it(name, tmp_path):
    unpack(name, tmp_path)
    with sqlite3.connect(tmp_path / "data" / "tree.db") as raw:
        before = raw.serialize()
    open_library(tmp_path).close()
    with sqlite3.connect(tmp_path / "data" / "backups" / f"{name}.db") as raw:
        assert raw.serialize() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user to be refused")
@pytest.mark.parametrize("name", FORMATS)
def test_an_older_library_that_may_only_be_read_is_read_and_left_as_it_is(name, tmp_path):
    expected = unpack(name, tmp_path)
    path = tmp_path / "data" / "tree.db"
    before = path.read_bytes()
    for each in [*tmp_path.rglob("*"), tmp_path, *tmp_path.parents]:
        if each != each.parent and len(each.parts) > 2:
            os.chmod(each, 0o755 if each.is_dir() else 0o644)
    os.seteuid(65534)
    try:
        with open_library(tmp_path) as library:
            assert library.read_only
            assert told(library) == expected
    finally:
        os.seteuid(0)
    assert path.read_bytes() == before


def test_a_row_that_was_changed_behind_the_seals_is_not_believed(tmp_path):
    expected = unpack(FORMATS[-1], tmp_path)
    open_library(tmp_path).close()
    with sqlite3.connect(tmp_path / "data" / "tree.db") as raw:
        raw.execute("UPDATE labels SET node_id = (SELECT id FROM nodes ORDER BY seq LIMIT 1) WHERE name = 'pirate'")
        raw.execute("UPDATE settings SET value = 'other'")
        raw.execute("UPDATE positions SET token = 7 WHERE window = 'second'")
        raw.execute("UPDATE conversations SET title = 'Tidal'  WHERE title = 'Tides'")
        raw.execute("UPDATE quicksaves SET node_id = (SELECT id FROM nodes ORDER BY seq LIMIT 1)")
    (tides,) = (key for key, value in expected.items() if "paths" in value and value["conversation"][1] == "Tides")
    with open_library(tmp_path) as library:
        assert [s.name for s in library.savepoints()] == ["the moon"]
        assert library.remembered_settings() == {}
        assert library.start_position(window="second").token is None
        assert library.quicksaves(tides) == []
        assert [c.title for c in library.conversations()] == ["Haiku"]
        assert library.conversation(tides).title == "(damaged)"
        assert {twig.id for twig in library.tree(tides)} >= set(expected[tides]["paths"])
        with pytest.raises(LibraryDamaged):  # a broken row cannot be changed into a good one
            library.set_title(tides, "x")
        for node_id in expected[tides]["paths"]:
            assert library.path(node_id)[-1].id == node_id
        assert library.node_states(next(n for n, s in expected[tides]["states"].items() if s))[0].state_key == KEY


def test_a_damaged_library_of_format_1_becomes_one_of_today_with_all_that_is_whole(tmp_path):
    expected = unpack("format-1", tmp_path)
    with sqlite3.connect(tmp_path / "data" / "tree.db") as raw:
        raw.execute("UPDATE nodes SET text = 'jello' WHERE text = 'AGAIN AS A PIRATE'")
    raw.close()
    assert fsck(tmp_path / "data", tmp_path / "cache", repair=True).left == 0
    with open_library(tmp_path) as library:
        after = told(library)
    lost = {node for told_ in expected.values() if "paths" in told_ for node in told_["paths"]} - {
        node for told_ in after.values() if "paths" in told_ for node in told_["paths"]
    }
    assert len(lost) == 1
    assert [after[key] for key in ("prompts", "settings", "model")] == [
        expected[key] for key in ("prompts", "settings", "model")
    ]
    assert [savepoint[0] for savepoint in after["names"]] == ["the moon"]
