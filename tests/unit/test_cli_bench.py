"""`bench`: every figure of its table, beside another run, and files that are no run."""

import json

import pytest

from app.cli_bench import ratios


@pytest.fixture
def bench(call, stories_path):
    return lambda *arguments: call("bench", "-m", str(stories_path), "-t", "1", *arguments)


def test_all_figures_are_there_and_a_run_is_compared_with_itself(bench, tmp_path):
    code, out, err = bench("--json")
    assert code == 0, err
    found = json.loads(out)
    for field in (
        "pp512", "pp2048", "tg", "tg_at_2048", "branches4_tok_s", "spec_quote_ratio", "spec_fresh_ratio", "read_gb_s",
        "load_s", "ready_s", "reprefill_s", "save_s", "load_state_s", "restore_s", "turn_save_s", "turn_save_cpu_s",
        "fork_us", "state_bytes", "peak_rss_bytes",
    ):  # fmt: skip
        assert found[field] > 0, field
    assert found["save_delay_ratio"] >= 0
    assert found["save_delay_cpu_s"] > 0
    assert found["save_delay_low"] <= found["save_delay_high"]
    assert found["save_delay_samples"] >= 7
    assert found["state_tokens"] == 2048
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"pp512": found["pp512"] / 2, "fork_us": 1e9, "peer": "llama.cpp"}, {"pp512": 1.0}]))
    code, out, err = bench("--quick", "--compare", str(other))
    assert code == 0, err
    assert out.startswith("stories260K.gguf · 1 threads")
    assert "RATIO" in out
    assert "e+0" not in out  # no person reads 1.3e+04
    assert "█" in out
    assert "pp2048" not in out


def test_ratios_are_above_one_where_this_run_is_better():
    assert ratios({"pp512": 20.0, "load_s": 2.0, "threads": 2}, {"pp512": 10.0, "load_s": 1.0, "threads": 2}) == {
        "pp512": 2.0,
        "load_s": 0.5,
    }


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"pp512": "fast"}', "\udcff"])
def test_a_file_that_is_no_run_is_named_before_anything_is_measured(bench, tmp_path, text):
    other = tmp_path / "other.json"
    other.write_bytes(text.encode("utf-8", "surrogateescape"))
    code, out, err = bench("--compare", str(other))
    assert code != 0
    assert out == ""
    assert "other.json" in err
    assert bench("--compare", str(tmp_path / "none.json"))[0] == 3
