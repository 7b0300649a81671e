"""Threads: how many by default, and that every one of them takes part in every step."""

import threading

import pytest

from engine.pool import ThreadPool, cpu_quota, physical_cores


@pytest.mark.parametrize(
    ("files", "group", "expected"),
    [
        ({"cpu.max": "100000 100000"}, "0::/", 1.0),
        ({"cpu.max": "max 100000"}, "0::/", None),
        ({"cpu.max": "max 100000", "a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b", 1.5),
        ({"a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b", 0.5),
        ({"cpu.max": "200000 100000"}, "0::/gone/away", 2.0),
        ({"cpu,cpuacct/x/cpu.cfs_quota_us": "300000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
         "9:memory:/y\n4:cpu,cpuacct:/x", 3.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", None),
        ({"cpu.max": "nonsense"}, "0::/", None),
        ({}, "no such line", None),
    ],
)  # fmt: skip
def test_the_quota_of_the_control_group(tmp_path, files, group, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    proc = tmp_path / "proc-self-cgroup"
    proc.write_text(group + "\n")
    assert cpu_quota(proc, tmp_path) == expected


def test_no_control_groups_no_quota(tmp_path):
    assert cpu_quota(tmp_path / "missing", tmp_path) is None


@pytest.mark.parametrize(("quota", "most"), [(0.5, 1), (1.0, 1), (1.5, 2), (None, 1024)])
def test_the_default_stays_within_the_quota(monkeypatch, quota, most):
    monkeypatch.setattr("engine.pool.cpu_quota", lambda: quota)
    assert 1 <= physical_cores() <= most


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_thread_runs_every_job_once(size):
    pool = ThreadPool(size)
    try:
        for _ in range(20):
            came, meet = [], threading.Barrier(size)

            def job(me, came=came, meet=meet):
                came.append((me, threading.get_ident()))
                meet.wait(10)

            pool.run(job)
            assert sorted(me for me, _ in came) == list(range(size))
            assert len({thread for _, thread in came}) == size
    finally:
        pool.close()


def test_a_thread_that_moved_may_still_run_everywhere():
    """Threads leave each other's processor; none is tied to one."""
    import os

    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no affinity on this system")
    pool, allowed = ThreadPool(4), []
    try:
        for _ in range(10):
            meet = threading.Barrier(4)

            def job(me, meet=meet):
                allowed.append(os.sched_getaffinity(0))
                meet.wait(10)

            pool.run(job)
        assert all(mask == os.sched_getaffinity(0) for mask in allowed)
    finally:
        pool.close()
