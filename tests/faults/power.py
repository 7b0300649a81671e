"""A disk that forgets: the store's operations, recorded, and what a power cut can leave of them.

The model, harsher than ext4: bytes are on the disk once their file was synced, names once their directory was; of what
was not, any single operation may be missing, or all of it, or one write may be torn. A sync that failed leaves its
bytes in memory and never on the disk, whatever a later one says. Operations are recorded through the store's seam
(`Recorder`; what SQLite commits then is durable when its commit returns) or, SQLite's own among them, by strace
(traced.py).
"""

import errno
import os
import shutil
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from snapshots.files import Files


class Op(NamedTuple):
    """One operation: `kind`, the inode it is about, paths, and bytes."""

    kind: str  # create write truncate sync sync_failed rename unlink mkdir sync_dir commit ack
    inode: int = 0
    path: Path = Path()
    target: Path = Path()
    place: int = 0
    data: bytes = b""
    what: tuple = ()


class Killed(BaseException):
    """The process is dead: nothing that it would do now is done."""


class Recorder(Files):
    """The real file system, and a record of what was asked of it. Mutants override what they leave out.

    The process dies once `killed` says so of the operations so far; `failing` is the number of the sync that fails.
    """

    def __init__(self, root, killed=None, failing=None):
        self.root, self.ops, self.syncs = Path(root), [], 0
        self.others = set()
        self.open, self.inodes, self.count = {}, {}, 0
        self.killed, self.failing = killed, failing
        self.start = Disk(self.root)
        if self.root.exists():
            self.inodes = self.start.load(self.root)
            self.count = len(self.inodes)

    def note(self, kind, **fields):
        self.ops.append(Op(kind, **fields))

    def _tick(self):
        if self.killed is not None and self.killed(self.ops):
            raise Killed

    def bury(self):
        """What the kernel does for a dead process; the next one may live."""
        for fd in [*self.open, *self.others]:
            os.close(fd)
        self.open, self.others, self.killed = {}, set(), None

    def ack(self, *what):
        """The store said that something is safe."""
        self.note("ack", what=what)

    def create(self, path):
        self._tick()
        fd = super().create(path)
        self.count += 1
        self.open[fd] = self.inodes[path] = self.count
        self.note("create", inode=self.count, path=path)
        return fd

    def open_existing(self, path):
        fd = super().open_existing(path)
        self.open[fd] = self.inodes.get(path, 0)
        return fd

    def open_or_create(self, path):
        fd = super().open_or_create(path)
        self.others.add(fd)
        return fd

    def close(self, fd):
        self.open.pop(fd, None)
        self.others.discard(fd)
        super().close(fd)

    def write(self, fd, data):
        self._tick()
        place = os.lseek(fd, 0, os.SEEK_CUR)
        super().write(fd, data)
        self.note("write", inode=self.open[fd], place=place, data=bytes(data))

    def truncate(self, fd, size):
        self._tick()
        super().truncate(fd, size)
        self.note("truncate", inode=self.open[fd], place=size)

    def sync(self, fd):
        self._tick()
        self.syncs += 1
        if self.syncs - 1 == self.failing:
            self.note("sync_failed", inode=self.open[fd])
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)
        self.note("sync", inode=self.open[fd])

    def rename(self, source, target):
        self._tick()
        super().rename(source, target)
        inode = self.inodes.pop(source, 0)
        self.inodes[target] = inode
        self.note("rename", inode=inode, path=source, target=target)

    def unlink(self, path):
        self._tick()
        super().unlink(path)
        self.note("unlink", inode=self.inodes.pop(path, 0), path=path)

    def make_dirs(self, path):
        if not path.is_dir():
            if path.parent != path:
                self.make_dirs(path.parent)
            self._tick()
            self.note("mkdir", path=path)
        super().make_dirs(path)

    def sync_dir(self, path):
        self._tick()
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
        elif op.kind == "sync_failed":
            synced.discard(op.inode)
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


class Disk:
    """Files and directories under a root, in memory; copies share bytes until one of them writes."""

    def __init__(self, root):
        self.root, self.names, self.files, self.folders, self.own = root, {}, {}, {root}, set()

    def copy(self):
        other = Disk(self.root)
        other.names, other.files, other.folders = dict(self.names), dict(self.files), set(self.folders)
        self.own = set()
        return other

    def _bytes(self, inode):
        if inode not in self.own:
            self.files[inode] = bytearray(self.files.get(inode, b""))
            self.own.add(inode)
        return self.files[inode]

    def apply(self, op, left=None):
        """Do one operation; of a torn write `left` bytes, and with 0 its length but none of its bytes."""
        if op.kind == "create":
            self.names[op.path] = op.inode
        elif op.kind == "write":
            data = op.data if left is None else op.data[:left] or bytes(len(op.data))
            there = self._bytes(op.inode)
            if len(there) < op.place:
                there.extend(bytes(op.place - len(there)))
            there[op.place : op.place + len(data)] = data
        elif op.kind == "truncate":
            there = self._bytes(op.inode)
            del there[op.place :]
            there.extend(bytes(op.place - len(there)))
        elif op.kind == "rename":
            self.names.pop(op.path, None)
            self.names[op.target] = op.inode
        elif op.kind == "unlink":
            self.names.pop(op.path, None)
        elif op.kind == "mkdir":
            self.folders.add(op.path)
        elif op.kind == "commit":
            self.names[op.path] = -1
            self.files[-1] = op.data
            self.own.discard(-1)

    def _there(self, path):
        return path == self.root or (path in self.folders and self._there(path.parent))

    def contents(self):
        """Directories, and files with their bytes, that can be reached from the root, by relative paths."""
        folders = sorted(path.relative_to(self.root) for path in self.folders if self._there(path))
        there = set(folders)
        files = {
            path.relative_to(self.root): self.files.get(inode, b"")
            for path, inode in self.names.items()
            if path.parent.relative_to(self.root) in there
        }
        return folders, files

    def load(self, folder):
        """Take what lies in a real folder as durable from the start; gives the inodes by path."""
        for path in sorted(folder.rglob("*")):
            if path.is_dir():
                self.folders.add(path)
            else:
                self.names[path] = len(self.names) + 1
                self.files[self.names[path]] = path.read_bytes()
        return dict(self.names)


class Replay:
    """A recording, and the disks that a cut leaves of it."""

    STRIDE = 48

    def __init__(self, ops, start, before=()):
        self.ops, self.marks, self.before = ops, [start], [tuple(what) for what in before]
        here = start.copy()
        for at, op in enumerate(ops, 1):
            here.apply(op)
            if at % self.STRIDE == 0:
                self.marks.append(here)
                here = here.copy()

    def lay_out(self, cut, folder):
        """Make the directory that the cut leaves; gives a digest of what is in it."""
        length, dropped, torn, left = cut
        first = min([length, *dropped, *([] if torn is None else [torn])])
        disk = self.marks[first // self.STRIDE].copy()
        for at in range(first - first % self.STRIDE, length):
            if at not in dropped:
                disk.apply(self.ops[at], left if at == torn else None)
        folders, files = disk.contents()
        digest = blake2b(digest_size=16)
        shutil.rmtree(folder, ignore_errors=True)
        for path in folders:
            os.mkdir(folder / path)
        for path, data in sorted(files.items()):
            with open(folder / path, "wb") as file:
                file.write(data)
            digest.update(f"{path} {len(data)} ".encode() + data)
        return digest.digest()

    def told(self, cut):
        """The operations that a cut drops or tears, in words."""
        _, dropped, torn, _ = cut
        lost = [self.ops[at] for at in (*dropped, *([] if torn is None else [torn]))]
        return [f"{op.kind} {op.path} {op.target} {op.inode} at {op.place}, {len(op.data)} bytes" for op in lost]

    def promised(self, length):
        """What was promised before the cut."""
        return [*self.before, *(op.what for op in self.ops[:length] if op.kind == "ack")]


def cuts(ops):
    """Every power cut: (prefix length, dropped, torn write, bytes of it that are left)."""
    for length in range(1, len(ops) + 1):
        loose = fleeting(ops[:length])
        yield length, (), None, 0
        if len(loose) > 1:
            yield length, tuple(loose), None, 0
        for at in loose:
            yield length, (at,), None, 0
            if ops[at].kind == "write":
                for left in sorted({0, len(ops[at].data) // 2, 512}):
                    if left < len(ops[at].data):
                        yield length, (), at, left
