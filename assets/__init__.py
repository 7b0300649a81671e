"""The bundled model and the recipe that made it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def bundled_model_path() -> Path:
    """The model file that comes with the app. Packages are installed as plain files, so it has a path of its own.

    Raises FileNotFoundError, with the place where the file should be, if the installation lacks it.
    """
    path = Path(str(files("assets") / "guide.gguf"))
    if not path.is_file():
        raise FileNotFoundError(f"the bundled model is missing: {path}")
    return path
