"""Commands on the library: list, tree, show, rename, delete, undo, stats. None of them needs a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

import click

from app.cli import json_option
from app.errors import NothingToDo
from app.sentences import counted
from app.terminal import ago, print_json, print_table, size, write_text
from snapshots import Action, DamagedNode, Glance, Library, Twig, UnknownName, UnknownRef

NO_LIBRARY = "There is no library yet."
NOTHING_SAVED = "Nothing is saved yet."
_SETTINGS = {"help_option_names": ["-h", "--help"]}


@contextmanager
def _reading() -> Iterator[Library | None]:
    """The library, or None where there is none yet: looking at it makes no files."""
    from app.libraries import own_library

    library = own_library(must_exist=True)
    try:
        yield library
    finally:
        if library is not None:
            library.close()


@contextmanager
def in_library(ref: str) -> Iterator[Library]:
    """The library in which `ref` must be. Raises UnknownRef where there is no library."""
    with _reading() as library:
        if library is None:
            raise UnknownRef(ref)
        yield library


def plain(record: Any) -> dict[str, Any]:
    """A record of the store as a JSON object."""
    return asdict(record) if is_dataclass(record) and not isinstance(record, type) else dict(record._asdict())


@click.command("list", context_settings=_SETTINGS)
@json_option
def list_command(as_json: bool) -> None:
    """List conversations and savepoints, the last used first."""
    with _reading() as library:
        named = library.savepoints() if library else []
        nodes = library.glances(s.node_id for s in named) if library else {}
        savepoints = [_savepoint_row(nodes[s.node_id], s.name, s.moved) for s in named if s.node_id in nodes]
        conversations = [plain(c) for c in library.conversations()] if library else []
    if as_json:
        print_json({"savepoints": savepoints, "conversations": conversations})
        return
    if not conversations:
        print(NOTHING_SAVED)
        return
    if savepoints:
        rows = [(s["name"], s["id"][:8], s["turn"], s["tokens"], ago(s["moved"]), s["text"]) for s in savepoints]
        print_table(("SAVEPOINT", "ID", "TURN", "TOKENS", "NAMED", "TEXT"), rows)
        print()
    shown = [(c["id"][:8], ago(c["last_used"]), c["title"] or "(no title)") for c in conversations]
    print_table(("CONVERSATION", "USED", "TITLE"), shown)


def _savepoint_row(node: Glance, name: str, moved: float) -> dict[str, Any]:
    return {
        "name": name,
        "id": node.id,
        "conversation": node.conversation_id,
        "turn": node.turn,
        "tokens": node.n_tokens,
        "moved": moved,
        "text": " ".join(node.preview.split())[:60],
    }


def node_id_of(library: Library, ref: str) -> str:
    """The full id of what REF means, also of a damaged message: naming and deleting it need nothing of its content."""
    try:
        return library.resolve(ref).node.id
    except DamagedNode as damaged:
        return damaged.node_id


@click.command("tree", context_settings=_SETTINGS)
@click.argument("ref", required=False)
@json_option
def tree_command(ref: str | None, as_json: bool) -> None:
    """Show the tree of the last used conversation, or of the one that REF is in."""
    with _reading() as library:
        if library is None or not library.conversations():
            if ref is not None:
                raise UnknownRef(ref)
            print_json([]) if as_json else print(NOTHING_SAVED)
            return
        conversation_id = (
            library.glance(node_id_of(library, ref)).conversation_id
            if ref is not None
            else library.conversations()[0].id
        )
        twigs = library.tree(conversation_id)
    if as_json:
        print_json([plain(twig) for twig in twigs])
        return
    for twig, rails in _with_rails(twigs):
        names = "".join(f" ★ {name}" for name in twig.names) + (" ★ quick" if twig.is_quick else "")
        here = "  ◀ here" if twig.is_head else ""
        text = " ".join(twig.preview.split())
        print_line(f"{rails}{twig.id[:8]} t{twig.turn} {twig.n_tokens:>5}{names} {twig.role}: {text}{here}")


def _with_rails(twigs: list[Twig]) -> Iterator[tuple[Twig, str]]:
    """Give each node with the lines in front of it; a chain without forks stays in one column."""
    children: dict[str | None, list[Twig]] = {}
    for twig in twigs:
        children.setdefault(twig.parent_id, []).append(twig)
    stack: list[tuple[Twig, str, str]] = []

    def push(parent: str | None, rails: str) -> None:
        found = children.get(parent, [])
        forked = len(found) > 1
        for at in range(len(found) - 1, -1, -1):
            last = at == len(found) - 1
            mark = ("└─ " if last else "├─ ") if forked else ""
            stack.append((found[at], rails + mark, rails + (("   " if last else "│  ") if forked else "")))

    push(None, "")
    while stack:
        twig, line, below = stack.pop()
        yield twig, line
        push(twig.id, below)


def print_line(text: str) -> None:
    """Print one line of mixed text, cut to a terminal's width."""
    import shutil
    import sys

    from app.sentences import one_line

    room = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 1 << 30
    line = one_line(text)
    print(line if len(line) <= room else line[: room - 1] + "…")


@click.command("show", context_settings=_SETTINGS)
@click.argument("ref", default="HEAD")
@json_option
def show_command(ref: str, as_json: bool) -> None:
    """Show the messages up to REF, the last used conversation's head by default."""
    with in_library(ref) as library:
        found = library.resolve(ref)
        nodes = library.path(found.node.id)
        states = {n.id: library.node_states(n.id) for n in nodes}
        names = {n.id: library.names_of(n.id) for n in nodes}
        origins = library.origins([n.id for n in nodes])
    if as_json:
        from app.documents import node_row

        rows = [node_row(n, names[n.id], [plain(s) for s in states[n.id]]) for n in nodes]
        print_json([{**r, "origin": plain(origins[r["id"]]) if r["id"] in origins else None} for r in rows])
        return
    for at, node in enumerate(nodes):
        continued = at > 0 and node.role == "assistant" == nodes[at - 1].role
        if continued and (names[node.id] or node.id in origins):
            write_text("\n")
            continued = False
        if node.id in origins and (at == 0 or nodes[at - 1].id not in origins):
            print_line(f"──── imported from {origins[node.id].source or 'somewhere'} {ago(origins[node.id].at)} ────")
        if node.id in origins and origins[node.id].checked == "differs":
            print_line("──── what its tokens say is not what it says ────")
        for name in names[node.id]:
            print_line(f"──── ★ {name} · t{node.turn} · {node.n_tokens} tokens ────")
        sign = {"user": "❯ ", "raw": "❯ ", "system": "# "}.get(node.role, "")
        write_text(("" if continued else sign) + node.text)
        more = at + 1 < len(nodes) and node.role == "assistant" == nodes[at + 1].role
        write_text("" if more else "\n")
    if found.token is not None:
        print_line(f"──── {ref} stands behind {found.token} of these {len(found.node.tokens)} tokens ────")


@click.command("rename", context_settings=_SETTINGS)
@click.argument("ref")
@click.argument("name")
@click.option("-f", "--force", is_flag=True, help="Move a name that is taken.")
@json_option
def rename_command(ref: str, name: str, force: bool, as_json: bool) -> None:
    """Give the savepoint REF the name NAME."""
    with in_library(ref) as library:
        try:
            library.rename(ref, name, force=force)
        except UnknownName:
            library.set_name(name, node_id_of(library, ref), force=force)
        node_id = node_id_of(library, name)
    print_json({"name": name, "id": node_id}) if as_json else print_line(f"{node_id[:8]} is “{name}” now.")


@click.command("delete", context_settings=_SETTINGS)
@click.argument("ref")
@click.option("--forever", is_flag=True, help="Forget it in every file: text, index, history, copies, states. No undo.")
@json_option
def delete_command(ref: str, forever: bool, as_json: bool) -> None:
    """Delete the message REF and everything behind it. `forkpoint undo` brings it back, but for --forever."""
    with in_library(ref) as library:
        node_id = node_id_of(library, ref)
        if forever:
            gone = library.delete_forever(node_id)
            if as_json:
                print_json({"id": node_id, "deleted": gone.messages, "files": gone.files, "forever": True})
            else:
                what = f"{counted(gone.messages, 'message')} and {counted(gone.files, 'file')} of states"
                print_line(f"Forgot {what}. Nothing brings them back.")
            return
        action = library.delete(node_id)
    count = action.detail.get("nodes", 1)
    if as_json:
        print_json({"id": node_id, "deleted": count})
    else:
        them = "it" if count == 1 else "them"
        print_line(f"Deleted {counted(count, 'message')}; `forkpoint undo` brings {them} back.")


@click.command("undo", context_settings=_SETTINGS)
@json_option
def undo_command(as_json: bool) -> None:
    """Reverse the last action of the library: turn, restore, fork, delete or rename."""
    with _reading() as library:
        if library is None:
            raise NothingToDo("There is nothing to undo.")
        action: Action = library.undo()
    print_json(plain(action)) if as_json else print_line(f"Undone: {action.kind}.")


@click.command("find", context_settings=_SETTINGS)
@click.argument("text")
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, metavar="N")
@json_option
def find_command(text: str, limit: int, as_json: bool) -> None:
    """Find messages that hold all words of TEXT, newest first; savepoints and conversations called so come before."""
    with _reading() as library:
        hits = library.find(text, limit) if library is not None else None
    if as_json:
        print_json([plain(hit) for hit in hits or ()])
    elif hits is None:
        print(NOTHING_SAVED)
    elif not hits:
        print_line(f"Nothing holds “{text}”.")
    else:
        rows = [(h.node_id[:8], h.turn, h.n_tokens, f"★ {h.name}" if h.name else h.role, h.text) for h in hits]
        print_table(("ID", "TURN", "TOKENS", "WHO", "TEXT"), rows)


@click.command("diff", context_settings=_SETTINGS)
@click.argument("a")
@click.argument("b")
@json_option
def diff_command(a: str, b: str, as_json: bool) -> None:
    """Show where the savepoints A and B part, and what each says from there on."""
    from app.savepoints import common_length

    with in_library(a) as library:
        paths = [library.path(library.resolve(ref).node.id) for ref in (a, b)]
        shared = common_length([n.id for n in paths[0]], [n.id for n in paths[1]])
        tokens = common_length(*(library.tokens(path[-1].id) for path in paths))
    last = paths[0][shared - 1] if shared else None
    same = shared == len(paths[0]) == len(paths[1])
    if as_json:
        from app.documents import node_row

        sides = [[node_row(n, (), ()) for n in path[shared:]] for path in paths]
        at = {"id": last.id, "turn": last.turn, "n_tokens": last.n_tokens} if last is not None else None
        print_json({"common": at, "common_tokens": tokens, "a": sides[0], "b": sides[1]})
        return
    if last is None:
        print_line(f"{a} and {b} have no message in common; the first {tokens} of their tokens are the same.")
    elif same:
        print_line(f"{a} and {b} are the same place: {last.id[:8]} (t{last.turn}), {tokens} tokens.")
    else:
        print_line(f"{a} and {b} part behind {last.id[:8]} (t{last.turn}), {tokens} tokens are the same.")
    for ref, path in zip((a, b), paths, strict=True) if not same else ():
        print_line(f"──── {ref} · {path[-1].id[:8]} · {path[-1].n_tokens} tokens ────")
        for node in path[shared:]:
            if node.text:
                sign = {"user": "❯ ", "raw": "❯ ", "system": "# "}.get(node.role, "")
                write_text(sign + node.text + "\n")


@click.command("stats", context_settings=_SETTINGS)
@click.argument("ref", required=False)
@json_option
def stats_command(ref: str | None, as_json: bool) -> None:
    """Count what is saved and its bytes; with REF, what that savepoint takes and what evicting it would cost."""
    from app.config import directories, load_config

    if ref is not None:
        _stats_of(ref, as_json)
        return
    roots = directories()
    with _reading() as library:
        if library is not None:
            library.set_cap(load_config().quota)
        counts = {**plain(library.stats()), "quota_bytes": library.cap} if library else {}
    facts = {**counts, "data_dir": str(roots.data), "cache_dir": str(roots.cache), "config_dir": str(roots.config)}
    if as_json:
        print_json(facts)
        return
    if not counts:
        print(NOTHING_SAVED)
    for name, value in facts.items():
        shown = size(value) if name.endswith("_bytes") else value
        print_line(f"{name.replace('_', ' '):<14} {shown}")


def _stats_of(ref: str, as_json: bool) -> None:
    from app.savepoints import recompute_s

    with in_library(ref) as library:
        node_id = node_id_of(library, ref)
        found = library.footprint(node_id)
        keys = [row.state_key for row in library.node_states(node_id)]
        guess = next(filter(None, (recompute_s(library, key, found.recompute_tokens) for key in keys)), None)
    if as_json:
        guessed = {"recompute_s": round(guess[0], 6) if guess else None, "recompute_timed": bool(guess and guess[1])}
        print_json({"id": node_id, **plain(found), **guessed})
        return
    pinned = ", pinned" if found.pinned else ""
    print_line(f"{node_id[:8]}: {found.n_tokens} tokens, {found.now_tokens} of them on disk{pinned}")
    print_line(f"{size(found.size_bytes)}: {size(found.unique_bytes)} its own, {size(found.shared_bytes)} shared")
    if not found.recompute_tokens:
        print_line("if this were evicted: resume at once, other savepoints keep the same state")
        return
    time = ""
    if guess is not None:
        seconds, timed = guess
        time = f" {'≈' if timed else 'in at most'} {max(seconds, 0.01):.{1 if seconds >= 1 else 2}f} s"
    print_line(f"if this were evicted: resume by recomputing {counted(found.recompute_tokens, 'token')}{time}")


@click.command("pin", context_settings=_SETTINGS)
@click.argument("ref")
@click.option("--off", is_flag=True, help="Let it go again.")
@json_option
def pin_command(ref: str, off: bool, as_json: bool) -> None:
    """Keep the state of REF on disk when room is made: it goes last. Names alone do not; quicksaves and places do."""
    with in_library(ref) as library:
        node_id = node_id_of(library, ref)
        library.pin(node_id, not off)
    word = "no longer pinned" if off else "pinned"
    print_json({"id": node_id, "pinned": not off}) if as_json else print_line(f"{node_id[:8]} is {word}.")


@click.command("gc", context_settings=_SETTINGS)
@json_option
def gc_command(as_json: bool) -> None:
    """Remove states that no message needs, and what dead processes left; then keep to the quota. No text is touched."""
    from app.config import load_config

    with _reading() as library:
        if library is None:
            print_json({"files": 0, "size_bytes": 0, "evicted": None}) if as_json else print_line(NO_LIBRARY)
            return
        library.set_cap(load_config().quota)
        garbage = library.collect_garbage()
        eviction = library.make_room()
    evicted = plain(eviction) if eviction is not None else None
    if as_json:
        print_json({**{key: value for key, value in plain(garbage).items() if key != "demoted"}, "evicted": evicted})
        return
    print_line(f"Removed {counted(garbage.files, 'file')} ({size(garbage.size_bytes)}) that nothing needs.")
    if eviction is not None:
        resume = f"{counted(eviction.demoted, 'savepoint')} {'resumes' if eviction.demoted == 1 else 'resume'}"
        print_line(f"Evicted {size(eviction.size_bytes)} more: {resume} by recomputing.")
