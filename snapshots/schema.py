"""The tables of tree.db. FORMAT.md explains them; a change here is a new FORMAT and a migration."""

from snapshots.seals import SEALED

FORMAT = 2
"""What this program writes, kept in SQLite's user_version."""
READABLE_BY = 1
"""The oldest format number of a program that can read what this one writes, kept in the table `meta`."""
APPLICATION_ID = 0x464B5054  # "FKPT"

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    created REAL NOT NULL,
    template_date TEXT NOT NULL,
    last_used REAL NOT NULL,
    use_order INTEGER NOT NULL,
    head_id TEXT,
    deleted INTEGER
) WITHOUT ROWID;
CREATE INDEX conversations_by_use ON conversations(use_order);

CREATE TABLE nodes (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    conversation_id TEXT NOT NULL,
    parent_id TEXT,
    role TEXT NOT NULL,
    text TEXT NOT NULL,
    keep INTEGER NOT NULL,
    tokens BLOB NOT NULL,
    n_tokens INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    stop TEXT NOT NULL,
    sampler TEXT NOT NULL,
    dice_key BLOB NOT NULL,
    prompt_key TEXT NOT NULL,
    state_key TEXT NOT NULL,
    created REAL NOT NULL,
    row_digest BLOB NOT NULL,
    deleted INTEGER
);
CREATE INDEX nodes_by_parent ON nodes(parent_id);
CREATE INDEX nodes_by_conversation ON nodes(conversation_id, seq);
CREATE INDEX nodes_deleted ON nodes(deleted) WHERE deleted IS NOT NULL;

CREATE TABLE node_states (
    node_id TEXT NOT NULL,
    state_key TEXT NOT NULL,
    n_tokens INTEGER NOT NULL,
    logits_digest TEXT NOT NULL,
    has_bundle INTEGER NOT NULL,
    bytes_stored INTEGER NOT NULL,
    created REAL NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (node_id, state_key)
) WITHOUT ROWID;

CREATE TABLE labels (
    name TEXT PRIMARY KEY,
    node_id TEXT NOT NULL,
    created REAL NOT NULL,
    moved REAL NOT NULL,
    move_order INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX labels_by_node ON labels(node_id);

CREATE TABLE quicksaves (seq INTEGER PRIMARY KEY AUTOINCREMENT, conversation_id TEXT NOT NULL, node_id TEXT NOT NULL);
CREATE INDEX quicksaves_by_conversation ON quicksaves(conversation_id, seq);

CREATE TABLE head_log (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation_id TEXT NOT NULL,
    node_id TEXT,
    reason TEXT NOT NULL,
    window TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX head_log_by_conversation ON head_log(conversation_id, seq);

CREATE TABLE positions (
    window TEXT PRIMARY KEY,
    conversation_id TEXT NOT NULL,
    node_id TEXT,
    token INTEGER
) WITHOUT ROWID;

CREATE TABLE actions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    at REAL NOT NULL,
    state INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX actions_by_conversation ON actions(conversation_id, seq);

CREATE TABLE finished_journals (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE prompts (seq INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE);
CREATE TABLE models (
    state_key TEXT PRIMARY KEY,
    prompt_key TEXT NOT NULL,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    state_fields TEXT NOT NULL,
    prompt_fields TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

FORMAT_2 = (
    "CREATE TABLE IF NOT EXISTS origins (node_id TEXT PRIMARY KEY, source TEXT NOT NULL, at REAL NOT NULL,"
    " checked TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS pins (node_id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS state_uses (node_id TEXT PRIMARY KEY, used INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS state_uses_by_use ON state_uses(used)",
    *(f"ALTER TABLE {table} ADD COLUMN seal BLOB" for table in SEALED),
)
"""What format 2 added: a seal in every row, where imported messages came from, what an eviction spares and takes
first. Pins and uses carry no seal: a wrong one demotes another state, which is computed again.
"""
