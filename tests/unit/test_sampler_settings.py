"""Sampler settings: kept as JSON, checked field by field, taken from a model file; and the tokens that break DRY."""

import math

import gguf
import pytest
from chains import make

from engine.errors import SamplerError
from engine.gguf import GGUF
from engine.sampler import SamplerSettings, dry_breakers


def test_settings_survive_json():
    settings = make(stop=("\nUser:",), top_k=7, temperature=0.25)
    assert SamplerSettings.from_json(settings.to_json()) == settings
    assert SamplerSettings.from_json({"temperature": 1}).temperature == 1.0
    assert isinstance(SamplerSettings.from_json({"temperature": 1}).temperature, float)
    assert SamplerSettings.from_json({}) == SamplerSettings()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "hot"),
        ("temperature", True),
        ("temperature", 10**400),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("typical_p", 2),
        ("repeat_penalty", 0.0),
        ("repeat_last_n", -2),
        ("presence_penalty", math.nan),
        ("dry_allowed_length", 0),
        ("dry_base", 0.5),
        ("xtc_probability", 1.5),
        ("stop", "x"),
        ("stop", [""]),
        ("stop", ["x"] * 65),
        ("stop", [1]),
        ("warmth", 3),
    ],
)
def test_settings_out_of_range_are_named(field, value):
    with pytest.raises(SamplerError) as error:
        SamplerSettings.from_json({field: value})
    assert error.value.field == field
    assert field in str(error.value)


def test_the_files_own_defaults(tmp_path):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_float32("general.sampling.temp", 0.7)
    writer.add_int32("general.sampling.top_k", 20)
    writer.add_float32("general.sampling.top_p", 7.5)
    writer.add_float32("general.sampling.penalty_repeat", 1.05)
    writer.add_string("general.sampling.min_p", "a little")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with GGUF.open(path) as opened:
        found = SamplerSettings.from_gguf(opened)
    assert found == SamplerSettings(temperature=0.7, top_k=20, repeat_penalty=1.05)


def test_breakers_are_the_tokens_that_hold_them():
    class Vocabulary:
        vocabulary_size = 5

        def token_bytes(self, token):
            return [b"", b" a", b":\n", b"*", b"b"][token]

        def is_special(self, token):
            return token == 0

    assert dry_breakers(Vocabulary(), ("\n", "*")) == (0, 2, 3)
