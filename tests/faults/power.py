"""A disk that forgets: the store's operations, recorded through its seam, and what a power cut can leave of them.

The model, harsher than ext4: bytes are on the disk once their file was synced, names once their directory was; of what
was not, any single operation may be missing, or all of it, or the last write may be torn. What SQLite commits is
durable when its commit returns (synchronous=EXTRA): the record holds the database's bytes at each commit.
"""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from snapshots.files import Files


class Op(NamedTuple):
    """One operation: `kind`, the inode it is about, paths, and bytes."""

    kind: str  # create write truncate sync rename unlink mkdir sync_dir commit ack
    inode: int = 0
    path: Path = Path()
    target: Path = Path()
    place: int = 0
    data: bytes = b""
    what: tuple = ()


class Recorder(Files):
    """The real file system, and a record of what was asked of it. Mutants override what they leave out."""

    def __init__(self, root):
        self.root, self.ops = Path(root), []
        self.open, self.inodes, self.count = {}, {}, 0

    def note(self, kind, **fields):
        self.ops.append(Op(kind, **fields))

    def ack(self, *what):
        """The store said that something is safe."""
        self.note("ack", what=what)

    def create(self, path):
        fd = super().create(path)
        self.count += 1
        self.open[fd] = self.inodes[path] = self.count
        self.note("create", inode=self.count, path=path)
        return fd

    def open_existing(self, path):
        fd = super().open_existing(path)
        self.open[fd] = self.inodes.get(path, 0)
        return fd

    def close(self, fd):
        self.open.pop(fd, None)
        super().close(fd)

    def write(self, fd, data):
        place = os.lseek(fd, 0, os.SEEK_CUR)
        super().write(fd, data)
        self.note("write", inode=self.open[fd], place=place, data=bytes(data))

    def truncate(self, fd, size):
        super().truncate(fd, size)
        self.note("truncate", inode=self.open[fd], place=size)

    def sync(self, fd):
        super().sync(fd)
        self.note("sync", inode=self.open[fd])

    def rename(self, source, target):
        super().rename(source, target)
        inode = self.inodes.pop(source, 0)
        self.inodes[target] = inode
        self.note("rename", inode=inode, path=source, target=target)

    def unlink(self, path):
        super().unlink(path)
        self.note("unlink", inode=self.inodes.pop(path, 0), path=path)

    def make_dirs(self, path):
        if not path.is_dir():
            if path.parent != path:
                self.make_dirs(path.parent)
            self.note("mkdir", path=path)
        super().make_dirs(path)

    def sync_dir(self, path):
        super().sync_dir(path)
        self.note("sync_dir", path=path)

    def committed(self, path):
        self.note("commit", path=path, data=path.read_bytes())


def fleeting(ops):
    """Places of the operations that nothing has made durable yet."""
    synced, named, found = set(), set(), []
    for at in range(len(ops) - 1, -1, -1):
        op = ops[at]
        if op.kind == "sync":
            synced.add(op.inode)
        elif op.kind == "sync_dir":
            named.add(op.path)
        elif op.kind in ("write", "truncate"):
            if op.inode not in synced:
                found.append(at)
        elif op.kind in ("create", "unlink", "mkdir"):
            if op.path.parent not in named:
                found.append(at)
        elif op.kind == "rename" and op.target.parent not in named:
            found.append(at)
    return found[::-1]


def lay_out(ops, root, folder, dropped=(), torn=None, left=0):
    """Make the directory that a power cut behind `ops` leaves, without the operations `dropped`, one write torn."""
    files, names, folders, database = {}, {}, {root}, None
    for at, op in enumerate(ops):
        if at in dropped:
            continue
        if op.kind == "create":
            names[op.path] = op.inode
        elif op.kind == "write":
            data = op.data[:left] if at == torn else op.data
            old = files.get(op.inode, b"").ljust(op.place, b"\0")
            files[op.inode] = old[: op.place] + data + old[op.place + len(data) :]
        elif op.kind == "truncate":
            files[op.inode] = files.get(op.inode, b"")[: op.place]
        elif op.kind == "rename":
            names.pop(op.path, None)
            names[op.target] = op.inode
        elif op.kind == "unlink":
            names.pop(op.path, None)
        elif op.kind == "mkdir":
            folders.add(op.path)
        elif op.kind == "commit":
            database = op
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def there(path):
        return path == root or (path in folders and there(path.parent))

    for path in folders:
        if there(path):
            (folder / path.relative_to(root)).mkdir(parents=True, exist_ok=True)
    for path, inode in names.items():
        if there(path.parent):
            (folder / path.relative_to(root)).write_bytes(files.get(inode, b""))
    if database is not None:
        place = folder / database.path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(database.data)


def cuts(ops):
    """Every power cut: (prefix length, dropped, torn write, bytes of it that are left)."""
    for length in range(1, len(ops) + 1):
        loose = fleeting(ops[:length])
        yield length, (), None, 0
        if loose:
            yield length, tuple(loose), None, 0
        for at in loose:
            yield length, (at,), None, 0
            if ops[at].kind == "write":
                for left in sorted({0, len(ops[at].data) // 2, 512}):
                    if left < len(ops[at].data):
                        yield length, (), at, left
