"""ARCHITECTURE.md names every module of the three packages, and no file that is not there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"([\w/]+\.py)\b", TEXT))


def section(title):
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize(("title", "package"), [("Engine", "engine"), ("Store", "snapshots"), ("App", "app")])
def test_every_module_has_its_row(title, package):
    modules = {path.name for path in (ROOT / package).rglob("*.py") if path.parent.name != "tui"} - {"__init__.py"}
    assert len(modules) > 30
    missing = {name for name in modules if f"`{name}`" not in section(title)}
    assert {name for name in missing if not name.startswith("cli")} == set()  # those are a row: cli*.py


def test_every_file_that_is_named_is_there():
    there = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if ".venv" not in path.parts]
    assert {name for name in NAMED if not any(f"/{path}".endswith(f"/{name}") for path in there)} == set()


def test_the_fault_battery_names_twenty_rows_and_every_file_of_tests():
    battery = section("Tests")
    rows = re.findall(r"^\| ([\d, *\\]+) \|", battery, re.MULTILINE)
    assert [int(n) for row in rows for n in re.findall(r"\d+", row)] == list(range(1, 21))
    assert {p.name for p in (ROOT / "tests/faults").glob("test_*.py")} <= set(re.findall(r"test_\w+\.py", battery))
