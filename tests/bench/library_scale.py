"""Builds a large library and prints how long it takes to open, list, search, commit and save; then strange shapes.

Asserts nothing.

python tests/bench/library_scale.py FOLDER [--conversations 2000] [--messages 50] [--long 131072]
"""

import argparse
import functools
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from engine.token_list import TokenList  # noqa: E402
from snapshots import BLOCK, Chunk, Library, Message, NodeState, names, states, tree  # noqa: E402

WORDS = (ROOT / "README.md").read_text(encoding="utf-8").lower().split()
KEY = "5ca1ab1e" * 8


def build(folder, conversations, messages):
    """Conversations that fork here and there, with a name on every hundredth message."""
    dice, begin = random.Random(7), time.perf_counter()
    with Library.open(folder / "data", folder / "cache") as library:
        for number in range(conversations):
            chat = library.new_conversation(" ".join(dice.choices(WORDS, k=4)))
            with library._db.write() as tx:
                path = []
                for at in range(messages):
                    parent = dice.choice(path) if path and dice.random() < 0.1 else path[-1] if path else None
                    role = "assistant" if at % 2 else "user"
                    text = " ".join(dice.choices(WORDS, k=40))
                    tokens = tuple(dice.randrange(32000) for _ in range(60))
                    made = Message(role, text, tokens, stop="stop", sampler={"temperature": 0.8}, dice_key=b"d" * 16)
                    node, _ = tree.put_node(tx, chat.id, parent, made, KEY)
                    states.put_state(tx, NodeState(node.id, KEY, node.n_tokens, "0" * 64, True, 9, 1.0))
                    path.append(node.id)
                    if (number * messages + at) % 100 == 0:
                        names.put(tx, f"place {number} {at}", node.id)
                tx.execute("UPDATE conversations SET head_id = ? WHERE id = ?", (path[-1], chat.id))
    return time.perf_counter() - begin


def timed(call, times=9):
    """The median of some calls, in ms; the first is thrown away."""
    call()
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(found)


def look(folder):
    def show(what, ms):
        print(f"{what:<58} {ms:8.1f} ms", flush=True)

    def opened():
        Library.open(folder / "data", folder / "cache").close()

    show("open", timed(opened))
    with Library.open(folder / "data", folder / "cache") as library:
        begin = time.perf_counter()
        library.index_text()
        show("index all text, once", 1e3 * (time.perf_counter() - begin))
        chats = library.conversations()
        show("list conversations", timed(library.conversations))
        show("list savepoints", timed(library.savepoints))
        show("tree of one conversation", timed(lambda: library.tree(chats[0].id)))
        show("find two words", timed(lambda: library.find("message savepoint")))
        show("find a word's beginning", timed(lambda: library.find("conversat")))
        show("find what nothing holds", timed(lambda: library.find("xyzzy plugh")))
        show("resolve a name", timed(lambda: library.resolve("place 0 0")))
        numbers = iter(range(10**6))
        head = chats[0].head_id

        def commit():
            library.add_node(chats[0].id, head, Message("user", f"number {next(numbers)}", (1, 2, 3)))

        show("commit a message", timed(commit, 25))
    for command in (["list"], ["find", "message savepoint"]):
        call = [sys.executable, "-m", "app", *command, "--json"]
        env = {"FORKPOINT_DATA_DIR": str(folder / "data"), "FORKPOINT_CACHE_DIR": str(folder / "cache")}
        env |= {"FORKPOINT_CONFIG_DIR": str(folder / "config"), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        run = lambda call=call, env=env: subprocess.run(call, env=env, check=True, stdout=subprocess.DEVNULL)
        show(f"forkpoint {' '.join(command)}, the whole process", timed(run, 3))


def state(tokens, start, width=256):
    """Chunks of pseudo-random halves for tokens from `start` on."""
    dice, found = np.random.default_rng(1), []
    while start < len(tokens):
        stop = min(len(tokens), start - start % BLOCK + BLOCK)
        found.append(Chunk(start, stop, {"k": dice.standard_normal((width, stop - start)).astype("f2")}))
        start = stop
    return found


def long_conversation(folder, length):
    """Saving the next turn behind many tokens, and 21 forks behind one long prefix."""
    shutil.rmtree(folder / "long", ignore_errors=True)
    logits = np.zeros(32000, "f4")
    with Library.open(folder / "long" / "data", folder / "long" / "cache") as library:
        chat = library.new_conversation()
        dice = random.Random(1)
        tokens, parent = [], None
        for size in (1024, 4096, length // 4, length):
            more = tuple(dice.randrange(32000) for _ in range(size - len(tokens)))
            parent = library.add_node(chat.id, parent, Message("raw", f"{size}", more)).id
            tokens += more
            library.save_state(parent, KEY, tokens, state(tokens, library.save_from(KEY, tokens)), logits=logits)
            found = []
            for turn in range(12):
                more = tuple(dice.randrange(32000) for _ in range(200))
                node = library.add_node(chat.id, parent, Message("raw", f"{size} {turn}", more))
                parent, tokens = node.id, [*tokens, *more]
                whole = TokenList(tokens)  # as a session has them
                time.sleep(0.1)
                begin, cpu = time.perf_counter(), time.process_time()
                start = library.save_from(KEY, whole)
                begin, cpu = begin - time.perf_counter(), cpu - time.process_time()
                chunks = state(whole, start)
                begin, cpu = begin + time.perf_counter(), cpu + time.process_time()
                library.save_state(node.id, KEY, whole, chunks, logits=logits)
                found.append((1e3 * (time.perf_counter() - begin), 1e3 * (time.process_time() - cpu)))
            took, cpu = map(statistics.median, zip(*found, strict=True))
            what = f"save a turn of 200 tokens behind {size}"
            print(f"{what:<58} {took:8.1f} ms, {cpu:.1f} of the CPU", flush=True)
            prefix = timed(functools.partial(library.longest_prefix, KEY, tokens))
            print(f"{f'longest stored prefix of {size} tokens':<58} {prefix:8.1f} ms", flush=True)
    shutil.rmtree(folder / "long", ignore_errors=True)
    with Library.open(folder / "long" / "data", folder / "long" / "cache") as library:
        prefix = [dice.randrange(32000) for _ in range(4096)]
        library.save_state(None, KEY, prefix, state(prefix, 0), logits=logits)
        one = library.stats().bundle_bytes
        for branch in range(21):
            whole = [*prefix, *(branch * 40 + n for n in range(40))]
            library.save_state(None, KEY, whole, state(whole, len(prefix)), logits=logits)
        own = 21 * 40 * 256 * 2
        print(
            f"21 forks of 40 tokens behind 4096: {library.stats().bundle_bytes / (one + own):.2f} x (one + own tokens)"
        )
    shutil.rmtree(folder / "long", ignore_errors=True)


def once(what, call):
    begin = time.perf_counter()
    found = call()
    print(f"{what:<58} {1e3 * (time.perf_counter() - begin):8.1f} ms", flush=True)
    return found


def shapes(folder, messages, branches, labels):
    """Many messages in one line, many branches under one message, many names, and long messages."""
    shutil.rmtree(folder / "shapes", ignore_errors=True)
    with Library.open(folder / "shapes" / "data", folder / "shapes" / "cache") as library:
        line, wide = library.new_conversation("line"), library.new_conversation("wide")

        def said(tx, chat, parent, text, tokens=(1, 2, 3)):
            return tree.put_node(tx, chat.id, parent, Message("user", text, tokens), KEY)[0].id

        with library._db.write() as tx:
            path = [None]
            for number in range(messages):
                path.append(said(tx, line, path[-1], f"message {number}"))
                states.put_state(tx, NodeState(path[-1], KEY, 3 * number + 3, "0" * 64, True, 9, 1.0))
            root = said(tx, wide, None, "root")
            leaves = [said(tx, wide, root, f"branch {number}") for number in range(branches)]
            rows = [(f"name {number}", leaves[number % branches], 1.0, 1.0, number) for number in range(labels)]
            tx.executemany("INSERT INTO labels(name, node_id, created, moved, move_order) VALUES (?,?,?,?,?)", rows)
            tx.execute("UPDATE conversations SET head_id = ? WHERE id = ?", (path[-1], line.id))
        tokens = library.tokens(path[-1])
        library.save_state(None, KEY, tokens, state(tokens, 0, 1), logits=np.zeros(9, "f4"))
        where = f" of {messages} messages in one line"
        once("tree" + where, lambda: library.tree(line.id))
        once("path" + where, lambda: library.path(path[-1]))
        once("nearest name" + where, lambda: library.nearest_name(path[-1]))
        once("export" + where, lambda: sum(map(len, library.export(path[-1]))))
        once("delete half" + where, lambda: library.delete(path[messages // 2]))
        once("undo" + where, library.undo)
        once("backup" + where, lambda: library.back_up(now=True))
        once("gc" + where, library.collect_garbage)
        once(f"tree of {branches} branches under one message", lambda: library.tree(wide.id))
        once(f"switch among {branches} branches", lambda: library.siblings(leaves[0]))
        once(f"list {labels} names", library.savepoints)
        once(f"set one of {labels} names", lambda: library.set_name("mine", leaves[1]))
        text = "word " * 20_000
        once("commit behind it", lambda: library.add_node(line.id, path[-1], Message("user", "next", (1,))))
        long = once("commit 100 KB", lambda: library.add_node(wide.id, leaves[0], Message("user", text, (1,) * 25_000)))
        once("find in them", lambda: library.find("branch 77"))
        once("forget 100 KB for good", lambda: library.delete_forever(long.id))
    print(f"most memory so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    shutil.rmtree(folder / "shapes", ignore_errors=True)


def main():
    reader = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    reader.add_argument("folder", type=Path)
    reader.add_argument("--conversations", type=int, default=2000)
    reader.add_argument("--messages", type=int, default=50)
    reader.add_argument("--long", type=int, default=131_072)
    reader.add_argument("--line", type=int, default=20_000, help="messages in one line")
    reader.add_argument("--branches", type=int, default=20_000, help="under one message")
    reader.add_argument("--labels", type=int, default=100_000)
    options = reader.parse_args()
    if not (options.folder / "data" / "tree.db").exists():
        seconds = build(options.folder, options.conversations, options.messages)
        print(f"{options.conversations} conversations of {options.messages} messages, made in {seconds:.0f} s")
    size = (options.folder / "data" / "tree.db").stat().st_size
    print(f"tree.db: {size / 1e6:.0f} MB")
    look(options.folder)
    long_conversation(options.folder, options.long)
    shapes(options.folder, options.line, options.branches, options.labels)


if __name__ == "__main__":
    main()
