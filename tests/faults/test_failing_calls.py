"""Row 6 of the battery: ENOSPC, EIO, EDQUOT and EINTR at every call that writes, and a disk that fills up by pages.

strace lets the calls of a child fail; a small tmpfs really fills up. Where neither can be had a warning says so, and
the twin that always runs does the same at the store's own seam to the file system.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from faults.failing_child import save_turns
from faults.kit import KEY, FailingFiles, assert_true, open_library, save
from faults.report import report
from snapshots import Message
from snapshots.fsck import fsck

CHILD = Path(__file__).resolve().with_name("failing_child.py")
CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "ftruncate", "mkdir", "unlink", "openat")
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EINTR")
SEAM = ("make_dirs", "create", "write", "sync", "rename", "sync_dir")
REBUILDABLE = {"states"}  # a damaged state file is computed again; anything else would be a loss


def look(folder, promised):
    """The disk is well again: what was promised is there, nothing is wrong, and the next save completes."""
    if promised:  # else the library may never have come to be: an empty tree.db, which is made whole when it opens
        problems = [p for p in fsck(folder / "data", folder / "cache").problems if p.where not in REBUILDABLE]
        assert problems == []
    with open_library(folder) as library:
        names = {each.name: each.node_id for each in library.savepoints()}
        for kind, *what in promised:
            if kind == "node":
                assert library.path(what[0])[-1].id == what[0]
            elif kind == "name":
                assert names[what[0]] == what[1]
            elif kind == "state":
                assert library.load_state(KEY, library.tokens(what[0])).rung == "bundle"
            elif kind == "tokens":
                kept = [dead.tokens for dead in library.dead_replies() if dead.start.parent_id == what[0]]
                assert kept == [tuple(what[1])]
        for chat in library.conversations():
            for twig in library.tree(chat.id):
                assert_true(library.load_state(KEY, library.tokens(twig.id)), library.tokens(twig.id))
        chat = library.new_conversation("after")
        node = library.add_node(chat.id, None, Message("user", "there is space again", tuple(range(70))))
        assert save(library, library.tokens(node.id), node.id).complete
        assert library.back_up(now=True)
    problems = [p for p in fsck(folder / "data", folder / "cache").problems if p.where not in REBUILDABLE]
    assert problems == []


# --------------------------------------------------------------------------------------------- calls that strace fails


@pytest.fixture(scope="module")
def strace():
    command = ["strace", "-o", os.devnull, "-e", "inject=fsync:error=EIO:when=1", "true"]
    if shutil.which("strace") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        warnings.warn("row 6 (errors at every system call) cannot run here: there is no strace", stacklevel=1)
        pytest.skip("no strace; the twin at the store's own seam runs instead")


def traced(folder, calls, options, out=os.devnull):
    command = ["strace", "-f", "-o", str(out), "-e", f"trace={calls}", *options]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command += [sys.executable, str(CHILD), str(folder)]
    done = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=120)
    assert done.stderr == b"", (calls, options, done.stderr.decode())  # a traceback, or more than a sentence
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def chances(strace, tmp_path_factory):
    """Of each call, the numbers of those by the main thread that change the disk, in a run in which none fails."""
    folder = tmp_path_factory.mktemp("counted")
    code, promised = traced(folder, ",".join(CALLS), [], folder / "trace")
    assert (code, len([p for p in promised if p[0] == "state"])) == (0, 2)
    lines = (folder / "trace").read_text().splitlines()
    main = [line for line in lines if line.split()[0] == lines[0].split()[0]]
    made = {call: [line for line in main if f" {call}(" in line] for call in CALLS}
    made["ftruncate"] = made["write"]  # only what could not be written whole is cut: see `fail`
    return {
        call: [k for k, line in enumerate(own, 1) if call != "openat" or "O_CREAT" in line]
        for call, own in made.items()
    }


def fail(tmp_path, call, error, k, *, sticky):
    """One child whose k-th call fails, and all later ones if `sticky`; gives the first error's type, or ''.

    An EINTR that never ends is no state of any disk, and everybody tries again: there, sticky is twenty times.
    """
    when = f"{k}..{k + 19}" if sticky and error == "EINTR" else f"{k}+" if sticky else f"{k}"
    folder = tmp_path / f"{call} {error} {when}"
    options = ["-e", f"inject={call}:error={error}:when={when}"]
    if call == "ftruncate":  # the k-th write fails, and then it cannot be taken back either
        options = ["-e", f"inject=write:error=ENOSPC:when={k}", "-e", f"inject=ftruncate:error={error}"]
    code, told = traced(folder, "write,ftruncate" if call == "ftruncate" else call, options)
    errors = [what for what in told if what[0] == "error"]
    assert (code != 0) == bool(errors)
    assert code in (0, 9, 10), (call, error, when, errors)
    assert all("\n" not in sentence and sentence.endswith(".") for _, _, sentence in errors)
    look(folder, [what for what in told if what[0] != "error"])
    shutil.rmtree(folder)
    return errors[0][1] if errors else ""


def test_an_error_at_a_system_call_loses_nothing_that_was_promised(chances, tmp_path):
    """Each kind of call in the middle of the work, each error in its turn, once and for good."""
    kinds = []
    for number, call in enumerate(CALLS):
        for sticky in (False,) if call in ("openat", "ftruncate") else (False, True):
            for k in chances[call][len(chances[call]) // 2 :][:1]:
                error = ERRORS[(number + sticky) % len(ERRORS)]
                kinds.append(fail(tmp_path, call, error, k, sticky=sticky))
    assert any(kinds), "no call failed"
    report(6, runs=len(kinds), typed=sum(map(bool, kinds)), lost=0)


@pytest.mark.soak
@pytest.mark.parametrize("sticky", [False, True])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("call", CALLS)
def test_every_error_at_every_system_call(chances, call, error, sticky, tmp_path):
    if call == "openat" and sticky:
        pytest.skip("files that cannot even be read are no full disk")
    if call == "ftruncate" and (sticky or error == "EINTR"):
        pytest.skip("once and for good are one there, and Python tries again as long as it is interrupted")
    kinds = [fail(tmp_path, call, error, k, sticky=sticky) for k in chances[call]]
    assert any(kinds) or error == "EINTR"  # which Python and SQLite answer by trying again
    report(6, call=call, error=error, sticky=sticky, runs=len(kinds), typed=sum(map(bool, kinds)), lost=0)


# ---------------------------------------------------------------------------------------------- a disk that fills up


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        warnings.warn("row 6 (a disk that fills up) cannot run here: no tmpfs can be mounted", stacklevel=1)
        pytest.skip("no tmpfs can be mounted; the twin at the store's own seam runs instead")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place, pages):
    """Leave so many pages of 4 KiB free."""
    facts = os.statvfs(place)
    with (place / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, facts.f_bavail * facts.f_frsize - pages * 4096)
    assert os.statvfs(place).f_bavail * facts.f_frsize == pages * 4096


def fill_up(place, steps):
    """A library on the disk with so many pages left; those with too few give errors, the last has enough."""
    failed = 0
    for pages in steps:
        fill(place, pages)
        promised = []
        errors = save_turns(place / "home", lambda *what, to=promised: to.append(what))
        failed += bool(errors)
        assert {type(error).__name__ for error in errors} <= {"StoreFull", "StoreError"}
        assert pages < 200 or not errors
        (place / "filler").unlink()
        look(place / "home", promised)
        shutil.rmtree(place / "home")
    assert 0 < failed < len(steps)
    report(6, disk="tmpfs", steps=len(steps), failed=failed, lost=0)


def test_a_disk_that_fills_up_while_turns_are_saved(small_disk):
    fill_up(small_disk, [1, 2, 5, 11, 23, 37, 41, 53, 67, 79, 97, 250])


@pytest.mark.soak
def test_a_disk_that_fills_up_in_every_page(small_disk):
    fill_up(small_disk, range(1, 251))


# -------------------------------------------------------------------------------------------------- the twin, anywhere


def fail_at_the_seam(tmp_path, call, error, *, sticky, every):
    runs = typed = 0
    for at in range(0, 1000, every):
        folder, promised = tmp_path / f"{call}{error}{at}{sticky}", []
        files = FailingFiles({call}, at, error=getattr(errno, error), sticky=sticky, torn=call == "write")
        typed += bool(save_turns(folder, lambda *what, to=promised: to.append(what), files))
        look(folder, promised)
        shutil.rmtree(folder)
        runs += 1
        if files.failed == 0:
            break
    return runs, typed


def test_an_error_at_the_seam_loses_nothing_that_was_promised(tmp_path):
    figures = [
        fail_at_the_seam(tmp_path, call, ERRORS[(number + 2 * sticky) % 4], sticky=sticky, every=15)
        for number, call in enumerate(SEAM)
        for sticky in (False, True)
    ]
    assert sum(typed for _, typed in figures) > 0
    report(6, twin=True, runs=sum(runs for runs, _ in figures), lost=0)


@pytest.mark.soak
@pytest.mark.parametrize("error", ERRORS)
def test_every_error_at_every_call_of_the_seam(error, tmp_path):
    figures = [
        fail_at_the_seam(tmp_path, call, error, sticky=sticky, every=1) for call in SEAM for sticky in (False, True)
    ]
    report(6, error=error, twin=True, runs=sum(runs for runs, _ in figures), lost=0)
