"""`forkpoint fsck`: is everything that was saved there and true, and what can be mended."""

from __future__ import annotations

from typing import Any

import click

from app.cli import json_option
from app.cli_library import NO_LIBRARY, print_line
from app.config import directories
from app.sentences import counted
from app.terminal import print_json

DAMAGED = 14


@click.command("fsck")
@click.option("--repair", is_flag=True, help="Mend what can be mended; what is replaced is kept in “damaged”.")
@json_option
def fsck_command(repair: bool, as_json: bool) -> int:
    """Check the database, every seal, id and digest, the journals and the state files. Exit code 14: damage (left)."""
    from snapshots.fsck import fsck

    roots = directories()
    if not (roots.data / "tree.db").exists() and not (roots.data / "backups").exists():
        print_json({"problems": [], "done": [], "left": 0}) if as_json else print_line(NO_LIBRARY)
        return 0
    report = fsck(roots.data, roots.cache, repair=repair)
    if as_json:
        values: dict[str, Any] = report._asdict()
        print_json({**values, "problems": [problem._asdict() for problem in report.problems]})
    else:
        for problem in report.problems:
            print_line(" ".join(filter(None, (f"{problem.where}:", problem.key[:20], problem.what))))
        for line in report.done:
            print_line(f"repaired: {line}")
        found = {"message": report.messages, "journal": report.journals, "state file": report.state_files}
        counts = ", ".join(counted(count, thing) for thing, count in found.items())
        verdict = "whole" if not report.problems else "mended" if not report.left else f"{report.left} damaged"
        print_line(f"{counts}: {verdict}.")
    return DAMAGED if report.left else 0
