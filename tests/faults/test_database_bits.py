"""Row 7 of the battery, the database: a flipped bit is rejected, harmless, or left out and named by fsck."""

import contextlib
import io
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


def run(tmp_path, flips, seed):
    home = tmp_path / "home"
    with open_library(home) as library:
        tides, haiku = build(library)
        places = [library.conversation(each.id).head_id for each in (tides, haiku)]
        places.append(library.path(places[0])[1].id)
        library.index_text()
        expected = told(library)
        known = facts(expected) | answers(library, places)
    path = home / "data" / "tree.db"
    good = path.read_bytes()
    dice, counts = random.Random(seed), {"rejected": 0, "harmless": 0, "left_out": 0, "silent": 0}
    for _ in range(flips):
        bit = dice.randrange(8 * len(good))
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
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
        assert named, (bit, "fsck finds nothing")
        assert not wrong, (bit, wrong)
    path.write_bytes(good)
    return {"flips": flips, **counts, "bits": 8 * len(good)}


@pytest.mark.parametrize("part", range(2))
def test_no_flipped_bit_of_the_database_is_believed(part, tmp_path):
    figures = run(tmp_path, 150, seed=part)
    assert figures["rejected"] + figures["left_out"] > 5  # or nothing was hit
    report(7, **figures)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(20))
def test_twenty_thousand_flipped_bits(part, tmp_path):
    report(7, part=part, **run(tmp_path, int(os.environ.get("FORKPOINT_FLIPS", "1000")), seed=100 + part))
