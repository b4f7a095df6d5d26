CREATE TABLE tasks (
    id                text PRIMARY KEY,
    name              text NOT NULL,
    status            text NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    result            text,                        -- JSON
    start_time        timestamptz,
    end_time          timestamptz,
    parameters        text NOT NULL,               -- JSON
    error             text,
    attempt           bigint NOT NULL DEFAULT 0,  -- runs begun and not handed back
    max_attempts      bigint NOT NULL,
    attempts_before   bigint NOT NULL DEFAULT 0,  -- those that `retry` forgave
    backoff_ms        bigint NOT NULL,
    timeout_ms        bigint,
    run_at            timestamptz NOT NULL,
    created_at        timestamptz NOT NULL,
    worker            text,
    heartbeat         timestamptz,                        -- for people; leases go by the counter below
    beat              bigint NOT NULL DEFAULT 0,
    lease_ms          bigint NOT NULL DEFAULT 0,
    fence             bigint NOT NULL DEFAULT 0,  -- goes up with every owner; writes name theirs
    cancel_requested  bigint NOT NULL DEFAULT 0,
    parent            text REFERENCES tasks (id) ON DELETE CASCADE,
    root              text NOT NULL,               -- the parent's parent's ..
    step              text,                        -- what the parent calls it
    parent_attempt    bigint,
    is_tolerated      bigint NOT NULL DEFAULT 0,  -- whether the parent goes on when it fails
    is_waiting        bigint NOT NULL DEFAULT 0,  -- runs, but only its children do
    unique_key        text,
    schedule          text
);
CREATE INDEX tasks_due ON tasks (run_at, id) WHERE status = 'pending';
CREATE INDEX tasks_running ON tasks (id) WHERE status = 'running';
CREATE INDEX tasks_ended ON tasks (end_time) WHERE end_time IS NOT NULL;
CREATE INDEX tasks_created ON tasks (created_at);
CREATE INDEX tasks_root ON tasks (root);
CREATE UNIQUE INDEX tasks_step ON tasks (parent, step) WHERE parent IS NOT NULL;
CREATE UNIQUE INDEX tasks_unique ON tasks (unique_key) WHERE status IN ('pending', 'running');

-- What a task said, in the order it said it; `text` is whole lines.
CREATE TABLE task_lines (
    task    text NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    number  bigint NOT NULL,
    text    text NOT NULL,
    PRIMARY KEY (task, number)
);

CREATE TABLE task_schedules (
    id          text PRIMARY KEY,
    name        text NOT NULL,
    parameters  text NOT NULL,
    cron        text NOT NULL,
    next_at     timestamptz NOT NULL
)
