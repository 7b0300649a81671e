"""What every test shares: one JIT cache, directories of its own, Hypothesis profiles, the way to ../shared.

Set before anything of the project is imported, so that no test and no process that a test starts can touch a
person's real data, cache or configuration.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
TEST_CACHE = ROOT / ".test-cache"


def _jit_cache_dir() -> Path:
    """One folder for all sessions; the engine makes a folder in it for each state of its kernels and each CPU."""
    folder = TEST_CACHE / "jit"
    folder.mkdir(parents=True, exist_ok=True)
    states = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    for old in states[:-12]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


os.environ.setdefault("NUMBA_CACHE_DIR", str(_jit_cache_dir()))
# Processes that tests start run this checkout, whatever is installed.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

_HOME = Path(tempfile.mkdtemp(prefix="forkpoint-test-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
_KINDS = ("DATA", "CACHE", "CONFIG")
for _kind in _KINDS:
    os.environ[f"FORKPOINT_{_kind}_DIR"] = str(_HOME / "session" / _kind.lower())

# The default run is the same every time; HYPOTHESIS_PROFILE=explore looks further.
_ALWAYS = {
    "deadline": None,
    "report_multiple_bugs": False,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("ci", derandomize=True, max_examples=50, database=None, **_ALWAYS)
settings.register_profile("explore", max_examples=1000, print_blob=True, **_ALWAYS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(config, items):
    """`pytest` alone leaves the soak tests out; `pytest -m soak` runs them."""
    if config.option.markexpr:
        return
    soak = [item for item in items if item.get_closest_marker("soak")]
    if soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]


@pytest.fixture(autouse=True)
def own_directories(monkeypatch, request):
    """Each test has a data, a cache and a configuration directory of its own (not yet created)."""
    number = request.config.stash.get(_COUNT, 0) + 1
    request.config.stash[_COUNT] = number
    folder = _HOME / f"test{number}"
    for kind in _KINDS:
        monkeypatch.setenv(f"FORKPOINT_{kind}_DIR", str(folder / kind.lower()))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


_COUNT = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def model_file():
    """A function: the name of a small random-weight model -> its path, written once a session."""
    from conformance import family_models, make_models

    folder = _HOME / "models"
    folder.mkdir(exist_ok=True)

    def find(name):
        path = folder / f"{name}.gguf"
        if not path.exists() and name in family_models.FAMILIES:
            family_models.write(path, family_models.FAMILIES[name])
        elif not path.exists():
            make_models.write(path, make_models.shape_of(name))
        return path

    return find


@pytest.fixture(scope="session")
def open_model():
    """A function like Model.open that opens each (path, options) once a session and closes all of them at the end.

    Their passes are shared by all threads, however little there is to do.
    """
    from engine import batch
    from engine.model import Model

    opened = {}
    worth_waking, batch.WORTH_WAKING = batch.WORTH_WAKING, 0

    def find(path, **options):
        key = (path, *sorted(options.items()))
        if key not in opened:
            opened[key] = Model.open(path, **options)
        return opened[key]

    yield find
    batch.WORTH_WAKING = worth_waking
    for model in opened.values():
        model.close()


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The folder that holds pyproject.toml."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """../shared/data beside the checkout; tests that need it are skipped where it is missing."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no {os.path.relpath(folder, ROOT)} beside this checkout: the shared test data are not here")
    return folder


@pytest.fixture(scope="session")
def stories_path(shared_data) -> Path:
    """stories260K.gguf: a real trained Llama of 260 thousand weights."""
    path = shared_data / "stories260K.gguf"
    if not path.is_file():
        pytest.skip(f"no {os.path.relpath(path, ROOT)}: the shared test data are incomplete")
    return path
