"""COVERAGE.md argues branches that are there: its lines are lines of the store's files, and every one has a reason."""

import uncovered

ARGUED = uncovered.argued(uncovered.TABLE.read_text(encoding="utf-8"))


def test_every_argued_branch_leaves_and_goes_to_lines_that_exist_and_has_a_reason():
    assert ARGUED
    for (file, start, end), why in ARGUED.items():
        lines = {line.strip() for line in (uncovered.ROOT / file).read_text(encoding="utf-8").splitlines()}
        assert start in lines, (file, start)
        assert end in lines | {"(leaves)"}, (file, end)
        assert len(why) > 10, (file, start)


def test_the_table_is_read_as_it_is_written():
    some = {("snapshots/a.py", "if a | b:", "(leaves)"): "no such system", ("snapshots/b.py", "x", "y"): "why not"}
    assert uncovered.argued("words\n" + uncovered.table(some)) == some


def test_what_a_run_left_out_is_named_by_its_lines(tmp_path):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "a.py").write_text("if x:\n    y()\n")
    report = {"files": {"snapshots/a.py": {"missing_branches": [[1, -1], [1, 2]]}}}
    assert uncovered.uncovered(report, tmp_path) == [
        ("snapshots/a.py", "if x:", "(leaves)"), ("snapshots/a.py", "if x:", "y()"),
    ]  # fmt: skip
