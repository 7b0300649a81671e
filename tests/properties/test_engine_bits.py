"""The numeric contract: the same tokens give the same bytes, whatever way they were fed."""

import os

import pytest
from conformance.family_models import FAMILIES
from conformance.make_models import BITS, MODELS
from conformance.walk import Canon, walk
from hypothesis import given, settings
from hypothesis import strategies as st

# test_engine_cpus.py runs some of this with fewer
WALKS = int(os.environ.get("FORKPOINT_TEST_WALKS", "80"))
STARTS = st.tuples(*[st.integers(0, 140)] * 3)
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["prefill", "prefill", "step", "step", "fork", "truncate", "rewind", "restore", "cancel"]),
        st.integers(0, 5),
        st.integers(1, 100),
        st.sampled_from([1, 2, 7, 16, 33, 64, 512]),
        st.integers(0, 7),
    ),
    min_size=4,
    max_size=16,
)
KINDS = [(kind, kv) for kind in BITS for kv in ("f16", "q8_0")]
HEADS = [(name, "f16") for name in MODELS if name.startswith("f32")] + [("f32-head64", "q8_0"), ("f32-head128", "q8_0")]
# Small windows, layers that do not rotate, norms of heads: every family, and one of each of these with lesser keys
OF_FAMILIES = [(name, "f16") for name in FAMILIES] + [(name, "q8_0") for name in ("gemma3", "smollm3", "phi3")]


@pytest.fixture(scope="module")
def world(model_file, open_model):
    """(name, KV type) -> the canon and two models of the same file, with one thread and with two."""
    made = {}

    def find(name, kv_type):
        if (name, kv_type) not in made:
            path = model_file(name)
            models = [open_model(path, kv_type=kv_type, threads=n) for n in (1, 2)]
            made[name, kv_type] = Canon(models[0]), models
        return made[name, kv_type]

    return find


@pytest.mark.parametrize(("kind", "kv_type"), KINDS)
@settings(max_examples=WALKS)
@given(starts=STARTS, moves=MOVES)
def test_any_road_gives_the_same_bytes(world, kind, kv_type, starts, moves):
    canon, models = world(kind, kv_type)
    walk(canon, models, starts, moves)


@pytest.mark.parametrize(("name", "kv_type"), HEADS)
@settings(max_examples=15)
@given(starts=STARTS, moves=MOVES)
def test_any_head_size_and_grouping_gives_the_same_bytes(world, name, kv_type, starts, moves):
    canon, models = world(name, kv_type)
    walk(canon, models, starts, moves)


@pytest.mark.parametrize(("name", "kv_type"), OF_FAMILIES)
@settings(max_examples=10)
@given(starts=STARTS, moves=MOVES)
def test_any_family_gives_the_same_bytes(world, name, kv_type, starts, moves):
    canon, models = world(name, kv_type)
    walk(canon, models, starts, moves)


@settings(max_examples=15)
@given(starts=STARTS, moves=MOVES)
def test_any_road_gives_the_same_bytes_with_k_types(world, starts, moves):
    canon, models = world("k-mixed", "f16")
    walk(canon, models, starts, moves)


@pytest.mark.parametrize(("kind", "kv_type"), KINDS)
def test_one_prefill_gives_the_logits_of_every_position(world, kind, kv_type):
    canon, models = world(kind, kv_type)
    for model in models:
        for track, expected in zip(canon.tracks[:2], canon.logits, strict=False):
            rows = model.all_logits(track)
            assert [row.tobytes() for row in rows] == expected[1:]


@pytest.mark.soak
@pytest.mark.parametrize(("kind", "kv_type"), KINDS)
@settings(max_examples=400)
@given(starts=STARTS, moves=MOVES)
def test_any_road_at_length(world, kind, kv_type, starts, moves):
    canon, models = world(kind, kv_type)
    walk(canon, models, starts, moves)
