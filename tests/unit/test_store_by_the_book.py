"""What FORMAT.md says is what lies on the disk: a reader made from it alone finds every byte in its place."""

import io
import tarfile

import numpy as np
import pytest
from faults.kit import KEY, chunks, logits, open_library, save, state_files
from reference import formats

from snapshots import Chunk, Message
from snapshots import codec as codecs


def test_every_state_file_is_read_and_lies_where_its_tokens_say(tmp_path):
    tokens = list(range(3, 203))
    with open_library(tmp_path) as library:
        save(library, tokens)
        save(library, tokens[:150])  # ends within a block
    for whole in (tokens, tokens[:150]):
        for wanted in chunks(whole):
            path = tmp_path / "cache" / formats.segment_path(KEY, whole, wanted.start, wanted.stop)
            header, arrays = formats.state_file(path.read_bytes())
            assert (header["kind"], header["state_key"], header["start"]) == ("blocks", KEY, wanted.start)
            assert header["tokens"] == whole[wanted.start : wanted.stop]
            for name, array in wanted.arrays.items():
                assert arrays[name].tobytes() == array.tobytes()
                assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        header, arrays = formats.state_file((tmp_path / "cache" / formats.final_path(KEY, whole)).read_bytes())
        assert (header["kind"], header["n_tokens"], header["dice_key"]) == ("final", len(whole), (b"dice" * 4).hex())
        assert header["chain"] == formats.chain(KEY, whole)
        assert arrays["logits"].tobytes() == logits(whole).tobytes()
    assert len(state_files(tmp_path)) == 4 + 1 + 2  # no file that this did not read: the pieces behind 128 are two


def test_planes_references_and_types_of_all_widths_are_read(tmp_path):
    dice = np.random.default_rng(1)
    scale = np.exp2(dice.integers(-8, 8, (3, 8, 1)))
    arrays = {
        "k": (dice.standard_normal((3, 8, 64)) * scale).astype("<f2"),
        "v": (dice.standard_normal((3, 64, 8)) * scale.swapaxes(1, 2)).astype("<f2"),
        "scales": dice.standard_normal((3, 64)).astype("<f4"),
        "codes": dice.integers(-9, 9, (3, 64, 32)).astype("|i1"),
        "places": np.arange(64, dtype="<i8"),
    }
    tokens = list(range(64))
    with open_library(tmp_path) as library:
        library.save_state(None, KEY, tokens, [Chunk(0, 64, arrays)], logits=np.zeros(4, "f4"))
    data = (tmp_path / "cache" / formats.segment_path(KEY, tokens, 0, 64)).read_bytes()
    header, found = formats.state_file(data)
    assert data[10] == codecs.PLANES_APART
    assert {entry.get("axis") for entry in header["arrays"]} >= {-1, -2}
    assert all(found[name].tobytes() == array.tobytes() for name, array in arrays.items())


@pytest.mark.parametrize("number", [1, 2])
def test_the_golden_libraries_state_files_are_read(number, request, tmp_path):
    golden = request.path.parents[1] / "golden" / f"format-{number}.tar.gz"
    with tarfile.open(golden) as archive:
        names = [name for name in archive.getnames() if name.endswith((".seg", ".fin"))]
        codecs_found = set()
        for name in names:
            data = archive.extractfile(name).read()
            header, arrays = formats.state_file(data)
            assert arrays
            assert name.rsplit("/", 1)[1].startswith(header.get("chain", ""))
            codecs_found.add(data[10])
    assert names
    assert codecs_found <= {0, number}


def test_an_export_file_is_read_and_its_messages_give_their_own_ids(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation("a title")
        first = library.add_node(chat.id, None, Message("user", "hello ✓", tuple(range(70_000, 70_010)), dice_key=b"d"))
        reply = Message("assistant", "well " * 9000, tuple(range(500)), keep=4, stop="stop", sampler={"top_k": 4})
        last = library.add_node(chat.id, first.id, reply)
        library.set_name("here", last.id)
        data = b"".join(library.export(last.id, "conversation"))
    records = formats.export_file(data)
    assert [kind for kind, *_ in records][:1] == [1]
    assert records[-1][0] == 255
    assert records[-1][1]["records"] == len(records) - 1
    head = records[0][1]
    assert (head["what"], head["conversation"], head["title"], head["at"]) == (
        "conversation", chat.id, "a title", last.id,
    )  # fmt: skip
    said = [(values, text, ids) for kind, values, text, ids in records if kind == 3]
    assert [values["id"] for values, _, _ in said] == [first.id, last.id]
    for values, text, ids in said:
        parent = values["parent"] or head["conversation"]
        assert values["id"] == formats.node_id(
            parent, values["role"], text, values["keep"], ids, values["stop"], values["sampler"], values["dice"],
            values["prompt_key"],
        )  # fmt: skip
    assert said[1][0]["names"] == ["here"]
    assert io.BytesIO(data).readline() == b"forkpoint export 1\n"
