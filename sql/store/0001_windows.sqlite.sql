-- What `pipeline serve` promised to senders, and what it gives to readers.

-- One row per window and event type; the window may still be open.
CREATE TABLE aggregated_data (
  id                 INTEGER NOT NULL,  -- a hash of window and type
  window_start       REAL    NOT NULL,  -- seconds since the epoch
  window_end         REAL    NOT NULL,
  event_type         TEXT    NOT NULL,
  count              INTEGER NOT NULL,
  sum_value          REAL    NOT NULL,  -- exact, rounded once
  avg_value          REAL    NOT NULL,
  unique_users       INTEGER NOT NULL,
  unique_users_error REAL    NOT NULL,  -- relative standard error; 0: exact
  created_at         TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  version            INTEGER NOT NULL,  -- 1, then one more with every correction of a closed window
  PRIMARY KEY (window_start, window_end, event_type)
) STRICT, WITHOUT ROWID;

-- What was committed since the last save of window_groups, one row per commit.
CREATE TABLE window_journal (
  seq     INTEGER PRIMARY KEY,
  entries BLOB NOT NULL
) STRICT;

-- The state of every window that may still change.
CREATE TABLE window_groups (
  start_ms   INTEGER NOT NULL,
  end_ms     INTEGER NOT NULL,
  event_type TEXT    NOT NULL,
  state      BLOB    NOT NULL,
  PRIMARY KEY (start_ms, end_ms, event_type)
) STRICT, WITHOUT ROWID;

CREATE TABLE window_marks (
  name  TEXT PRIMARY KEY,
  value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- Identities of what was accepted. `epoch` is the time in units that expire together.
CREATE TABLE webhook_ids (
  epoch INTEGER NOT NULL,
  id    BLOB    NOT NULL,
  PRIMARY KEY (epoch, id)
) STRICT, WITHOUT ROWID;

-- Events whose window took no more.
CREATE TABLE late_events (
  seq         INTEGER PRIMARY KEY,
  received_at REAL NOT NULL,
  timestamp   REAL NOT NULL,
  event_type  TEXT NOT NULL,
  event       TEXT NOT NULL             -- as JSON
) STRICT;

-- What was posted and is no event.
CREATE TABLE webhook_rejects (
  seq         INTEGER PRIMARY KEY AUTOINCREMENT,
  received_at REAL NOT NULL,
  field       TEXT,
  reason      TEXT NOT NULL,
  body        TEXT NOT NULL             -- its first 4 KiB
) STRICT;

-- What a sink has not confirmed: at most one entry of a kind per row of aggregated_data.
CREATE TABLE window_outbox (
  sink       TEXT    NOT NULL,
  start_ms   INTEGER NOT NULL,
  end_ms     INTEGER NOT NULL,
  event_type TEXT    NOT NULL,
  kind       INTEGER NOT NULL,          -- 0 changed, 1 closed, 2 corrected
  seq        INTEGER NOT NULL,          -- order of delivery
  count              INTEGER NOT NULL,
  sum_value          REAL    NOT NULL,
  unique_users       INTEGER NOT NULL,
  unique_users_error REAL    NOT NULL,
  version            INTEGER NOT NULL,
  PRIMARY KEY (sink, start_ms, end_ms, event_type, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX window_outbox_order ON window_outbox (sink, seq);

-- Accepted events as lines, on their way to the archive; first_byte counts all lines ever accepted.
CREATE TABLE event_lines (
  first_byte INTEGER PRIMARY KEY,
  bytes      BLOB NOT NULL
) STRICT;
