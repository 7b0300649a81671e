"""A history acted out by a process of its own, and every change that it made to the disk, as strace saw it.

Here SQLite's own files are recorded like all others: its writes, its syncs, its rollback journal.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from faults.power import Disk, Op, Replay

CHILD = Path(__file__).with_name("traced_child.py")
CALLS = (
    "openat,open,creat,write,pwrite64,lseek,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,"
    "mkdirat,close,dup,dup2,dup3,fcntl,link,linkat,symlink,rmdir,writev,pwritev,fallocate,sync_file_range,mmap"
)
LINE = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


def record(scenario, folder, seed=0, mutant="", promised=()):
    """Run a scenario on a prepared folder; gives its Replay. The child's promises are operations among the others."""
    start = Disk(folder)
    inodes = start.load(folder)
    trace, heard = folder.parent / "trace", folder.parent / "heard"
    heard.write_bytes(b"")
    done = subprocess.run(
        ["strace", "-xx", "-s", "100000000", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(trace),
         sys.executable, str(CHILD), scenario, str(folder), str(seed), str(heard), mutant],
        capture_output=True, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    with trace.open() as lines:
        return Replay(list(Parser(folder, heard, inodes).operations(lines)), start, promised)


class Parser:
    """Makes operations of strace's lines."""

    def __init__(self, root, heard, inodes):
        self.root, self.heard, self.names = root, heard, inodes
        self.count, self.open, self.places = max(inodes.values(), default=0), {}, {}

    def operations(self, lines):
        for line in lines:
            found = LINE.match(line)
            if found is None or int(found[3]) < 0:
                continue
            call, arguments, result = found[1], found[2], int(found[3])
            texts = [bytes.fromhex(text.replace("\\x", "")) for text in TEXT.findall(arguments)]
            handler = getattr(self, f"_{call}", None)
            if handler is not None:
                yield from handler(arguments, texts, result)

    def _inside(self, text):
        path = Path(os.fsdecode(text))
        return path if path.is_relative_to(self.root) else None

    def _openat(self, arguments, texts, fd):
        path = Path(os.fsdecode(texts[0]))
        self.places[fd] = 0
        self.open[fd] = path
        if self._inside(texts[0]) is None or "O_DIRECTORY" in arguments or path in self.names or path.is_dir():
            if path in self.names and "O_TRUNC" in arguments:
                yield Op("truncate", inode=self.names[path])
            self.open[fd] = (path, self.names.get(path))
            return
        self.open[fd] = (path, None)
        if "O_CREAT" in arguments:
            self.count += 1
            self.names[path] = self.count
            self.open[fd] = (path, self.count)
            yield Op("create", inode=self.count, path=path)

    def _close(self, arguments, texts, result):
        self.open.pop(int(arguments), None)
        return ()

    def _fcntl(self, arguments, texts, result):
        fd, command, *_ = arguments.split(", ")
        if "F_DUPFD" in command:
            self.open[result] = self.open.get(int(fd), (Path(), None))
            self.places[result] = self.places.get(int(fd), 0)
        return ()

    def _lseek(self, arguments, texts, result):
        self.places[int(arguments.split(",")[0])] = result
        return ()

    def _write(self, arguments, texts, result):
        fd = int(arguments.split(",")[0])
        path, inode = self.open.get(fd, (Path(), None))
        if path == self.heard:
            for line in texts[0].splitlines():
                yield Op("ack", what=tuple(json.loads(line)))
        elif inode is not None:
            yield Op("write", inode=inode, place=self.places[fd], data=texts[0][:result])
        self.places[fd] = self.places.get(fd, 0) + result

    def _pwrite64(self, arguments, texts, result):
        _, inode = self.open.get(int(arguments.split(",")[0]), (Path(), None))
        if inode is not None:
            yield Op("write", inode=inode, place=int(arguments.rsplit(", ", 1)[1]), data=texts[0][:result])

    def _ftruncate(self, arguments, texts, result):
        fd, size = arguments.split(", ")
        _, inode = self.open.get(int(fd), (Path(), None))
        if inode is not None:
            yield Op("truncate", inode=inode, place=int(size))

    def _fsync(self, arguments, texts, result):
        path, inode = self.open.get(int(arguments), (Path(), None))
        if inode is not None:
            yield Op("sync", inode=inode)
        elif path.is_relative_to(self.root.parent):
            yield Op("sync_dir", path=path)

    _fdatasync = _fsync

    def _rename(self, arguments, texts, result):
        source, target = (Path(os.fsdecode(text)) for text in texts)
        if self._inside(texts[1]) is not None:
            inode = self.names.pop(source)
            self.names[target] = inode
            yield Op("rename", inode=inode, path=source, target=target)

    _renameat2 = _renameat = _rename

    def _unlink(self, arguments, texts, result):
        path = self._inside(texts[0])
        if path is not None:
            yield Op("unlink", inode=self.names.pop(path, 0), path=path)

    _unlinkat = _unlink

    def _mkdir(self, arguments, texts, result):
        path = self._inside(texts[0])
        if path is not None:
            yield Op("mkdir", path=path)

    _mkdirat = _mkdir

    def _unknown(self, arguments, texts, result):
        """Calls that this model knows nothing of must not be made on the store's files."""
        fd = arguments.split(",")[0]
        known = self.open.get(int(fd), (Path(), None)) if fd.isdigit() else (Path(), None)
        assert known[1] is None, arguments[:200]
        return ()

    _writev = _pwritev = _fallocate = _sync_file_range = _unknown

    def _link(self, arguments, texts, result):
        assert self._inside(texts[-1]) is None, arguments
        return ()

    _linkat = _symlink = _rmdir = _link
