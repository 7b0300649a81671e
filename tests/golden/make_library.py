"""Writes a golden library of the format that this program has, and what it says, for every later program to read.

    python tests/golden/make_library.py NAME        makes NAME.tar.gz and NAME.json beside this file

Run it once for each format that is released, by the program that releases it; never make an old one anew.
"""

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from faults.kit import KEY, open_library, save, talk  # noqa: E402

from snapshots import Message, ModelInfo, Position, ReplyStart  # noqa: E402


def told(library):
    """Everything that a library says of itself through its reading methods, as plain JSON."""
    out = {}
    for talk_ in library.conversations():
        twigs = library.tree(talk_.id, deleted=True)
        out[talk_.id] = {
            "conversation": list(talk_),
            "paths": {twig.id: [plain(node) for node in library.path(twig.id)] for twig in twigs},
            "twigs": [[*twig[:9], list(twig.names), *twig[10:15]] for twig in twigs],
            "log": [list(move) for move in library.head_log(talk_.id)],
            "quick": library.quicksaves(talk_.id),
            "states": {twig.id: [list(state) for state in library.node_states(twig.id)] for twig in twigs},
        }
    out["names"] = [list(savepoint) for savepoint in library.savepoints()]
    out["prompts"] = library.prompts()
    out["settings"] = dict(library.remembered_settings())
    out["model"] = list(library.model_info(KEY) or [])
    out["window"] = list(library.start_position(window="second") or [])
    return json.loads(json.dumps(out))


def plain(node):
    values = node._asdict()
    return {**values, "dice_key": node.dice_key.hex(), "sampler": dict(node.sampler), "tokens": list(node.tokens)}


def build(library):
    """Something of everything that a library can hold."""
    tides = library.new_conversation("Tides", template_date="2026-11-24")
    system = library.add_node(tides.id, None, Message("system", "Be brief.", (1, 2)))
    user, reply = talk(library, tides.id, system.id, "why are there tides", 70, sampler={"temperature": 0.5})
    _, pirate = talk(library, tides.id, reply.id, "again as a pirate")
    other = library.add_node(tides.id, user.id, Message("assistant", "¡Otra vez! 🌊", (9, 70000), stop="length"))
    library.set_name("moon", reply.id)
    library.set_name("pirate", pirate.id)
    library.quicksave(reply.id)
    library.quicksave(pirate.id)
    library.move_head(tides.id, reply.id, action="restore", window="first")
    haiku = library.new_conversation("Haiku")
    _, last = talk(library, haiku.id, None, "a haiku about the sea")
    doomed, _ = talk(library, haiku.id, last.id, "delete me")
    library.delete(doomed.id)
    library.rename("moon", "the moon")
    library.undo(haiku.id)
    library.delete(doomed.id)
    library.set_position(Position(tides.id, other.id, 1), window="second")
    library.remember_model(ModelInfo(KEY, "p", "tiny", "/models/tiny.gguf", {"kv_type": "f16"}, {"template": "t"}))
    library.add_prompt("why are there tides")
    library.remember_setting("model", "/models/tiny.gguf")
    for node in (reply, pirate, other):
        save(library, library.tokens(node.id), node.id)
    journal = library.begin_journal(ReplyStart(haiku.id, last.id, dice_key=b"d" * 16))
    journal.append([4, 5, 6], "three words so")
    journal.close()
    return tides, haiku


def main():
    name = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        with open_library(Path(folder)) as library:
            build(library)
            expected = told(library)
        with tarfile.open(HERE / f"{name}.tar.gz", "w:gz") as tar:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file() and path.parent.name != "locks":
                    data = path.read_bytes()
                    entry = tarfile.TarInfo(str(path.relative_to(folder)))
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    (HERE / f"{name}.json").write_text(json.dumps(expected, indent=0, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
