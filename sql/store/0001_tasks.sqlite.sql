CREATE TABLE tasks (
    id                TEXT PRIMARY KEY,
    name              TEXT NOT NULL,
    status            TEXT NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    result            TEXT,                        -- JSON
    start_time        TEXT,                        -- ISO 8601, UTC, milliseconds: strftime understands it
    end_time          TEXT,
    parameters        TEXT NOT NULL,               -- JSON
    error             TEXT,
    attempt           INTEGER NOT NULL DEFAULT 0,  -- runs begun and not handed back
    max_attempts      INTEGER NOT NULL,
    attempts_before   INTEGER NOT NULL DEFAULT 0,  -- those that `retry` forgave
    backoff_ms        INTEGER NOT NULL,
    timeout_ms        INTEGER,
    run_at            TEXT NOT NULL,
    created_at        TEXT NOT NULL,
    worker            TEXT,
    heartbeat         TEXT,                        -- for people; leases go by the counter below
    beat              INTEGER NOT NULL DEFAULT 0,
    lease_ms          INTEGER NOT NULL DEFAULT 0,
    fence             INTEGER NOT NULL DEFAULT 0,  -- goes up with every owner; writes name theirs
    cancel_requested  INTEGER NOT NULL DEFAULT 0,
    parent            TEXT REFERENCES tasks (id) ON DELETE CASCADE,
    root              TEXT NOT NULL,               -- the parent's parent's ..
    step              TEXT,                        -- what the parent calls it
    parent_attempt    INTEGER,
    is_tolerated      INTEGER NOT NULL DEFAULT 0,  -- whether the parent goes on when it fails
    is_waiting        INTEGER NOT NULL DEFAULT 0,  -- runs, but only its children do
    unique_key        TEXT,
    schedule          TEXT
) STRICT;
CREATE INDEX tasks_due ON tasks (run_at, id) WHERE status = 'pending';
CREATE INDEX tasks_running ON tasks (id) WHERE status = 'running';
CREATE INDEX tasks_ended ON tasks (end_time) WHERE end_time IS NOT NULL;
CREATE INDEX tasks_created ON tasks (created_at);
CREATE INDEX tasks_root ON tasks (root);
CREATE UNIQUE INDEX tasks_step ON tasks (parent, step) WHERE parent IS NOT NULL;
CREATE UNIQUE INDEX tasks_unique ON tasks (unique_key) WHERE status IN ('pending', 'running');

-- What a task said, in the order it said it; `text` is whole lines.
CREATE TABLE task_lines (
    task    TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    number  INTEGER NOT NULL,
    text    TEXT NOT NULL,
    PRIMARY KEY (task, number)
) STRICT;

CREATE TABLE task_schedules (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    parameters  TEXT NOT NULL,
    cron        TEXT NOT NULL,
    next_at     TEXT NOT NULL
) STRICT
