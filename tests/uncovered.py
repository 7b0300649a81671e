"""Compares what a coverage run left out of snapshots/ with what COVERAGE.md argues; `make coverage` runs it.

python tests/uncovered.py COVERAGE.json [--write]

A branch is named by its file, the line that it leaves and the line that it goes to, by their text: numbers would rot.
Prints every branch that nobody argued and every argument whose branch is covered by now. `--write` puts the first into
the table with an empty argument, for somebody to fill in, and takes the second out.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "COVERAGE.md"
HEAD = "| file | from | to | why |"


def uncovered(report, root=ROOT):
    """(file, line it leaves, line it goes to) of every branch that was never taken, in order, each once."""
    found = {}
    for name, facts in sorted(report["files"].items()):
        file = Path(name).name
        lines = (root / "snapshots" / file).read_text(encoding="utf-8").splitlines()
        for start, end in sorted(facts["missing_branches"]):
            text = lines[end - 1].strip() if end > 0 else "(leaves)"
            found[(f"snapshots/{file}", lines[start - 1].strip(), text)] = None
    return list(found)


def argued(text):
    """The table of COVERAGE.md: branch → why."""
    rows = text.split(HEAD, 1)[1].splitlines()[2:] if HEAD in text else []
    found = {}
    for row in rows:
        if row.startswith("| "):
            file, start, end, why = (cell.strip().replace("\\|", "|") for cell in row[2:-2].split(" | "))
            found[(file, start.strip("`"), end.strip("`"))] = why
    return found


def table(arguments):
    quoted = lambda text: "`" + text.replace("|", "\\|") + "`"
    rows = [f"| {f} | {quoted(a)} | {quoted(b)} | {why} |" for (f, a, b), why in sorted(arguments.items())]
    return "\n".join([HEAD, "|---|---|---|---|", *rows]) + "\n"


def main():
    reader = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    reader.add_argument("report", type=Path)
    reader.add_argument("--write", action="store_true")
    options = reader.parse_args()
    report = json.loads(options.report.read_text(encoding="utf-8"))
    text = TABLE.read_text(encoding="utf-8")
    left_out, arguments = uncovered(report), argued(text)
    missing = [branch for branch in left_out if not arguments.get(branch)]
    over = [branch for branch in arguments if branch not in left_out]
    totals = report["totals"]
    print(
        f"snapshots: {totals['num_branches'] - totals['missing_branches']} of {totals['num_branches']} branches,"
        f" {totals['covered_lines']} of {totals['num_statements']} statements; {len(left_out)} branches left out"
    )
    for what, branches in (("not argued", missing), ("covered by now", over)):
        for file, start, end in branches:
            print(f"{what}: {file}: {start} → {end}")
    if options.write:
        TABLE.write_text(
            text.split(HEAD, 1)[0] + table({branch: arguments.get(branch, "") for branch in left_out}), encoding="utf-8"
        )
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
