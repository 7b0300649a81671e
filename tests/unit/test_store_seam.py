"""Every file operation of the store goes through snapshots/files.py, so that a test can fail, tear or record it."""

import ast
from pathlib import Path

import pytest

import snapshots

MODULES = sorted(Path(snapshots.__file__).parent.glob("*.py"))
HARMLESS = {"urandom", "strerror", "devnull", "stat_result"}  # of os: no file of ours is touched by them
TOUCHING = {
    "absolute", "chmod", "exists", "expanduser", "glob", "hardlink_to", "is_dir", "is_file", "is_symlink", "iterdir",
    "lstat", "mkdir", "open", "owner", "read_bytes", "read_text", "readlink", "rename", "resolve", "rglob", "rmdir",
    "samefile", "stat", "symlink_to", "touch", "unlink", "walk", "write_bytes", "write_text",
}  # fmt: skip
FORBIDDEN_MODULES = {"shutil", "fcntl", "glob", "tempfile", "io", "mmap", "subprocess", "socket", "fileinput", "msvcrt"}
SEAMS = {"files", "_files", "_disk"}  # what a Files is called everywhere
OTHERS = {("Database", "open"), ("tree", "touch"), ("names", "rename"), ("refs", "resolve")}  # of ours, no paths
SQLITE = {"absolute"}  # the name that SQLite itself opens: it takes a URI


def touching(source):
    """The lines of a module that could touch the file system past the seam."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES:
            found.append(f"{node.lineno}: imports {[alias.name for alias in node.names]}")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES | {"os"}:
            found.append(f"{node.lineno}: imports from {node.module}")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            if node.attr not in HARMLESS:
                found.append(f"{node.lineno}: os.{node.attr}")
            continue
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in {"open", "exec", "eval", "__import__"}:
            found.append(f"{node.lineno}: {called.id}()")
        if isinstance(called, ast.Attribute):
            owner = called.value.attr if isinstance(called.value, ast.Attribute) else getattr(called.value, "id", "")
            path_like = called.attr in TOUCHING or (called.attr == "replace" and len(node.args) == 1)
            if path_like and owner not in SEAMS and (owner, called.attr) not in OTHERS and called.attr not in SQLITE:
                found.append(f"{node.lineno}: .{called.attr}() of {owner or 'something'}")
    return found


@pytest.mark.parametrize("module", [path for path in MODULES if path.name != "files.py"], ids=lambda path: path.name)
def test_no_module_touches_a_file_but_through_the_seam(module):
    assert touching(module.read_text(encoding="utf-8")) == []


def test_the_seam_itself_is_where_files_are_touched():
    assert len(touching((MODULES[0].parent / "files.py").read_text(encoding="utf-8"))) > 20


@pytest.mark.parametrize(
    "line",
    [
        "import os\nos.access(path, 0)",
        "import shutil",
        "from os import path",
        "open(name)",
        "path.exists()",
        "self.path.read_bytes()",
        "[p for p in root.glob('*')]",
        "path.replace(other)",
        "x.parent.mkdir()",
    ],
)
def test_what_goes_past_the_seam_is_found(line):
    assert touching(line)
