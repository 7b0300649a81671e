"""Rows 7 and 8 of the battery, the database: damage is rejected, harmless, or left out and named by fsck."""

import contextlib
import io
import itertools
import json
import os
import random
from pathlib import Path

import pytest
from golden.make_library import build, told

from faults.kit import open_library
from faults.report import report
from snapshots import StoreError, exchange
from snapshots.fsck import fsck

PAGE = 4096
SEARCHES = ("tides", "pirate", "moon", "sea", "otra", "Haiku")
NOT_FACTS = ("window", "model")  # a place or model that is left out falls back to another one


def facts(out):
    """What a library says, as a set of single claims: those about a row do not hang on other rows."""
    found = set()

    def claim(*what):
        found.add(json.dumps(what, sort_keys=True))

    for key, value in out.items():
        if key in NOT_FACTS:
            continue
        if not isinstance(value, dict) or "paths" not in value:
            for each in value.items() if isinstance(value, dict) else value:
                claim(key, each)
            continue
        if value["conversation"][1]:
            claim("conversation", value["conversation"])
        for nodes in value["paths"].values():
            for node in nodes:
                claim("node", node)
        for twig in value["twigs"]:
            if twig[4] != "(damaged)":
                claim("twig", twig[:9])
        for kind in ("log", "quick"):
            for each in value[kind]:
                claim(kind, key, each)
        for node_id, states in value["states"].items():
            for state in states:
                claim("state", node_id, state)
    return found


def answers(library, places):
    """What searches find, references mean and exports hold, as single claims; what is refused claims nothing."""
    questions = []
    for word in SEARCHES:
        questions.append(("hit", word, lambda word: [hit[:-1] for hit in library.find(word)]))
        questions.append(("called", word, lambda word: [hit for hit in library.find(word) if hit.name]))
    for ref in ("pirate", "the moon", *places):
        questions += [("ref", each, lambda each: [library.resolve(each).node.id]) for each in (ref, f"{ref}~1")]
        questions.append(("siblings", ref, lambda ref: [n.id for n in library.siblings(library.resolve(ref).node.id)]))
    for place in places:
        questions.append(("path", place, lambda place: [carried(b"".join(library.export(place)))]))
        for scope in ("conversation", "tree"):
            ask = lambda place, scope=scope: carried(b"".join(library.export(place, scope)))
            questions.append((scope, place, ask))
    found = set()
    for kind, key, ask in questions:
        with contextlib.suppress(StoreError):
            found.update(json.dumps([kind, key, answer], sort_keys=True) for answer in ask(key))
    return found


def carried(data):
    """The messages of an export."""
    return [[record.values["id"], record.text] for record in exchange.read(io.BytesIO(data)) if record.kind == 3]


def flipped(data, dice, count):
    for _ in range(count):
        bit = dice.randrange(8 * len(data))
        yield data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def cut(data, dice, count):
    """Shorter and longer files, sectors and pages of zeros, two pages in each other's place."""
    pages = len(data) // PAGE
    for _ in range(count):
        kind, at = dice.randrange(5), dice.randrange(len(data))
        size = dice.choice((512, PAGE))
        start = at // size * size
        one, two = (PAGE * number for number in sorted(dice.sample(range(pages), 2)))
        yield (
            data[:at],
            data[:start],
            data + bytes(dice.randrange(1, 9000)),
            data[:start] + bytes(size) + data[start + size :],
            b"".join(
                (data[:one], data[two : two + PAGE], data[one + PAGE : two], data[one : one + PAGE], data[two + PAGE :])
            ),
        )[kind]


def run(tmp_path, count, seed, changes=flipped):
    home = tmp_path / "home"
    with open_library(home) as library:
        tides, haiku = build(library)
        places = [library.conversation(each.id).head_id for each in (tides, haiku)]
        places.append(library.path(places[0])[1].id)
        library.index_text()
        library.back_up(now=True)  # beside which an empty tree.db is no new library
        expected = told(library)
        known = facts(expected) | answers(library, places)
    path = home / "data" / "tree.db"
    good = path.read_bytes()
    counts = {"rejected": 0, "harmless": 0, "left_out": 0, "silent": 0}
    for bad in changes(good, random.Random(seed), count):
        path.write_bytes(bad)
        for name in ("tree.db-journal", "tree.db-wal"):
            Path(home / "data" / name).unlink(missing_ok=True)
        try:
            with open_library(home) as library:
                answered = answers(library, places)
                found = told(library)
        except StoreError:
            counts["rejected"] += 1
            continue
        if found == expected and answered <= known and answered | facts(found) == known:
            counts["harmless"] += 1
            continue
        wrong = (facts(found) | answered) - known
        named = fsck(home / "data", home / "cache").problems
        counts["left_out" if named and not wrong else "silent"] += 1
        assert named, "fsck finds nothing"
        assert not wrong, wrong
    path.write_bytes(good)
    return {"tried": sum(counts.values()), **counts, "bytes": len(good)}


@pytest.mark.parametrize("part", range(2))
def test_no_flipped_bit_of_the_database_is_believed(part, tmp_path):
    figures = run(tmp_path, 150, seed=part)
    assert figures["rejected"] + figures["left_out"] > 5  # or nothing was hit
    report(7, **figures)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(20))
def test_twenty_thousand_flipped_bits(part, tmp_path):
    report(7, part=part, **run(tmp_path, int(os.environ.get("FORKPOINT_FLIPS", "1000")), seed=100 + part))


@pytest.mark.parametrize("part", range(2))
def test_no_part_of_a_database_is_taken_for_the_whole(part, tmp_path):
    figures = run(tmp_path, 150, seed=part, changes=cut)
    assert figures["rejected"] > 20
    report(8, role="tree.db", **figures)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(4))
def test_four_thousand_torn_and_swapped_databases(part, tmp_path):
    report(8, role="tree.db", part=part, **run(tmp_path, 1000, seed=200 + part, changes=cut))


@pytest.mark.soak
def test_every_two_pages_in_each_others_place(tmp_path):
    def swaps(data, _dice, _count):
        pages = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
        for one, two in itertools.combinations(range(len(pages)), 2):
            changed = list(pages)
            changed[one], changed[two] = pages[two], pages[one]
            yield b"".join(changed)

    figures = run(tmp_path, None, 0, changes=swaps)
    report(8, role="tree.db, all swaps", **figures)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(16))
def test_cut_at_every_length(part, tmp_path):
    figures = run(
        tmp_path, None, 0, changes=lambda data, _dice, _count: (data[:at] for at in range(part, len(data), 16))
    )
    report(8, role="tree.db, all lengths", part=part, **figures)
