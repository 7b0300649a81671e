"""config.toml and the places of files: what they may say, and how a mistake is said."""

import pytest

from app.config import Config, ConfigError, directories, load_config
from app.sentences import sentence


def test_environment_overrides_the_places(monkeypatch, tmp_path):
    monkeypatch.setenv("FORKPOINT_CACHE_DIR", str(tmp_path / "c"))
    monkeypatch.delenv("FORKPOINT_DATA_DIR")
    assert directories().cache == tmp_path / "c"
    assert directories().data.name == "forkpoint"


def test_a_whole_config_file(tmp_path):
    (tmp_path / "config.toml").write_text(
        'model = "m.gguf"\nthreads = 3\ncache-type = "q8_0"\ntheme = "nord"\n[sampler]\ntemperature = 0.5\n'
    )
    config = load_config(tmp_path)
    assert config == Config(
        model=tmp_path / "m.gguf", threads=3, cache_type="q8_0", theme="nord", sampler={"temperature": 0.5}
    )
    assert load_config(tmp_path / "nowhere") == Config()


@pytest.mark.parametrize(
    ("text", "words"),
    [("cache-type = 3", "“cache-type” must be text in quotes."),
     ("weights-cache = true", "“weights-cache” must be a whole number."),
     ("autosave = 1", "“autosave” must be true or false."), ("sampler = 1", "“sampler” must be a table."),
     ("[sampler]\ntop-k = 1", "“sampler.top-k” is not a setting."), ("x = 1", "prefill-ahead, ")],
)  # fmt: skip
def test_a_bad_config_is_said_in_the_words_of_the_file(tmp_path, text, words):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError) as wrong:
        load_config(tmp_path)
    assert words in sentence(wrong.value)


@pytest.mark.parametrize(
    ("text", "field"),
    [("threads = 0", "threads"), ("threads = true", "threads"), ('cache-type = "f64"', "cache_type"), ("x = 1", "x"),
     ("autosave = 1", "autosave"), ("[[[", None), ("model = 3", "model")],
)  # fmt: skip
def test_a_bad_config_names_the_field(tmp_path, text, field):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError) as wrong:
        load_config(tmp_path)
    assert wrong.value.field == field
