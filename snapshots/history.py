"""What people typed, which models they used, and small settings."""

from __future__ import annotations

import json
import sqlite3

from snapshots import ids, seals
from snapshots.records import ModelInfo

PROMPT_LIMIT = 2000


def add_prompt(tx: sqlite3.Connection, text: str) -> None:
    """Remember a prompt as the newest; the same text is kept once."""
    text = ids.clean_text(text)
    if not text.strip():
        return
    tx.execute("DELETE FROM prompts WHERE text = ?", (text,))
    tx.execute("INSERT INTO prompts(text) VALUES (?)", (text,))
    tx.execute(
        "DELETE FROM prompts WHERE seq <= (SELECT seq FROM prompts ORDER BY seq DESC LIMIT 1 OFFSET ?)", (PROMPT_LIMIT,)
    )


def prompts(tx: sqlite3.Connection, query: str, limit: int) -> list[str]:
    """Prompts that contain `query`, in any case, newest first."""
    wanted, found = ids.clean_text(query).casefold(), list[str]()
    for row in tx.execute(f"SELECT {seals.columns('prompts')} FROM prompts ORDER BY seq DESC"):
        text = row[1] if seals.whole("prompts", row) else ""
        if text and wanted in text.casefold():
            found.append(text)
            if len(found) >= limit:
                break
    return found


def remember_model(tx: sqlite3.Connection, model: ModelInfo) -> None:
    """Store or replace what is known of a model."""
    values = (
        model.state_key, model.prompt_key, ids.clean_text(model.name), ids.clean_text(model.path),
        ids.plain_json(model.state_fields, "state_fields"), ids.plain_json(model.prompt_fields, "prompt_fields"),
    )  # fmt: skip
    tx.execute(
        "INSERT OR REPLACE INTO models(state_key, prompt_key, name, path, state_fields, prompt_fields)"
        " VALUES (?,?,?,?,?,?)",
        values,
    )


def model_info(tx: sqlite3.Connection, state_key: str) -> ModelInfo | None:
    """What is known of a model, or None."""
    row = tx.execute(f"SELECT {seals.columns('models')} FROM models WHERE state_key = ?", (state_key,)).fetchone()
    if row is None or row[0] != state_key or not seals.whole("models", row):
        return None
    return ModelInfo._make((*row[:4], json.loads(row[4]), json.loads(row[5])))


def settings(tx: sqlite3.Connection) -> dict[str, str]:
    """All small values."""
    return dict(seals.believed("settings", tx.execute(f"SELECT {seals.columns('settings')} FROM settings")))


def remember_setting(tx: sqlite3.Connection, key: str, value: str) -> None:
    """Store or replace one small value."""
    tx.execute("INSERT OR REPLACE INTO settings(key, value) VALUES (?,?)", (key, ids.clean_text(value)))
