"""No space, a failing disk, a file size limit: a typed error, the text kept, the next save complete."""

import contextlib
import errno
import itertools
import resource
import shutil
import signal

import pytest

from faults.kit import KEY, FailingFiles, assert_true, open_library, save, talk
from snapshots import Library, Message, ReplyStart, StoreError, StoreFull

CALLS = ("make_dirs", "create", "write", "sync", "rename", "sync_dir")
TOKENS = list(range(70))


def test_a_save_that_fails_at_any_call_is_typed_and_the_next_one_completes(tmp_path):
    """Each kind of call, each time it is made, once and for good: nothing wrong is ever loaded."""
    tried = 0
    with open_library(tmp_path) as library:
        chat = library.new_conversation()
        node = library.add_node(chat.id, None, Message("user", "the text", tuple(TOKENS)))
    for call, sticky in itertools.product(CALLS, (False, True)):
        for at in range(1000):
            cache = tmp_path / f"{call}{at}{sticky}"
            files = FailingFiles({call}, at, sticky=sticky, torn=call == "write")
            with contextlib.ExitStack() as opened:
                try:
                    library = opened.enter_context(Library.open(tmp_path / "data", cache, files=files))
                except StoreFull:
                    tried += 1  # the data directory itself could not be made
                    continue
                report = None
                with contextlib.suppress(StoreFull):
                    report = save(library, TOKENS, node.id)
                assert report is None or report.complete
                assert_true(library.load_state(KEY, TOKENS), TOKENS)
                assert not list(tmp_path.rglob("*.tmp"))
                (row,) = library.node_states(node.id)
                assert row.has_bundle == (report is not None)
            if files.failed == 0:
                break
            tried += 1
            with Library.open(tmp_path / "data", cache) as library:
                assert library.node(node.id) == node
                assert save(library, TOKENS).complete
                state = library.load_state(KEY, TOKENS)
                assert state.rung == "bundle"
                assert_true(state, TOKENS)
            shutil.rmtree(cache)
    assert tried > 40


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, "StoreFull"),
        (errno.EDQUOT, "StoreFull"),
        (errno.EROFS, "StoreReadOnly"),
        (errno.EIO, "StoreError"),
    ],
)
def test_each_trouble_has_its_type(tmp_path, number, kind):
    with open_library(tmp_path, FailingFiles({"write"}, 0, error=number, sticky=True)) as library:
        with pytest.raises(StoreError) as caught:
            save(library, TOKENS)
        assert type(caught.value).__name__ == kind
        with pytest.raises(StoreError):
            library.begin_journal(ReplyStart("c", None))
        assert library.dead_replies() == []


@contextlib.contextmanager
def file_size_limit(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)


def test_a_tree_that_cannot_grow_keeps_every_turn_that_was_acknowledged(tmp_path):
    with open_library(tmp_path) as library:
        chat = library.new_conversation()
        acknowledged, parent = [], None
        with file_size_limit(200 << 10):
            with pytest.raises(StoreError):  # noqa: PT012 - which turn meets the limit is not known
                for turn in range(1000):
                    _, reply = talk(library, chat.id, parent, f"{turn} " + "words " * 2000)
                    parent = reply.id
                    acknowledged.append(reply.id)
            assert len(acknowledged) > 1
            assert [n.id for n in library.path(parent)][1::2] == acknowledged
        _, reply = talk(library, chat.id, parent, "there is space again")
    with open_library(tmp_path) as library:
        assert [n.id for n in library.path(reply.id)][1::2] == [*acknowledged, reply.id]
