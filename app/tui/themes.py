"""The colours of forkpoint itself; every theme that Textual brings is there beside it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from textual.theme import Theme

from app.config import directories, make_private

DEFAULT_THEME = "forkpoint"

FORKPOINT = Theme(
    name=DEFAULT_THEME,
    primary="#8FB8FF",
    secondary="#B79CFF",
    accent="#FFC66D",
    foreground="#D6DAE6",
    background="#10131C",
    surface="#161B28",
    panel="#1E2536",
    success="#7FD6A4",
    warning="#FFC66D",
    error="#FF7E8B",
    dark=True,
    variables={
        "border": "#8FB8FF",
        "border-blurred": "#2C3650",
        "block-cursor-background": "#2C3650",
        "block-cursor-foreground": "#FFFFFF",
        "block-cursor-text-style": "none",
        "block-cursor-blurred-background": "#1E2536",
        "input-selection-background": "#8FB8FF 30%",
        "scrollbar": "#2C3650",
        "scrollbar-hover": "#3B486B",
        "scrollbar-active": "#8FB8FF",
        "scrollbar-background": "#10131C",
        "scrollbar-background-hover": "#10131C",
        "scrollbar-background-active": "#10131C",
        "scrollbar-corner-color": "#10131C",
        "markdown-h1-color": "#FFC66D",
        "markdown-h2-color": "#FFC66D",
        "markdown-h3-color": "#FFC66D",
    },
)

FORKPOINT_LIGHT = Theme(
    name="forkpoint-light",
    primary="#2F5FB3",
    secondary="#6A48B8",
    accent="#A86200",
    foreground="#252A36",
    background="#FAF8F3",
    surface="#F1EEE6",
    panel="#E6E1D5",
    success="#2F8056",
    warning="#A86200",
    error="#B53443",
    dark=False,
    variables={"border": "#2F5FB3", "border-blurred": "#CFC8B8"},
)

OWN_THEMES = (FORKPOINT, FORKPOINT_LIGHT)
REMEMBERED = "theme"  # a file in the config directory with the name that /theme chose; config.toml goes before it


def theme_names(available: Iterable[str]) -> list[str]:
    """Names of all themes, our own first."""
    return sorted(available, key=lambda name: (not name.startswith(DEFAULT_THEME), name))


def first_known(wanted: Iterable[str | None], available: Iterable[str]) -> str:
    """Give the first wanted theme that there is, else our own."""
    known = set(available)
    return next((name for name in wanted if name in known), DEFAULT_THEME) or DEFAULT_THEME


def remembered_theme() -> str | None:
    """The theme that was chosen last; None where there is none or it cannot be read."""
    try:
        return (directories().config / REMEMBERED).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def remember_theme(name: str) -> None:
    """Remember a theme for the next start; colours are not worth an error where that fails."""
    with suppress(OSError):
        path = directories().config / REMEMBERED
        make_private(path.parent)
        path.write_text(name + "\n", encoding="utf-8")
