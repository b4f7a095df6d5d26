-- The ledger: which byte ranges are committed, what they held, and the lines that became no row.
--
-- Run by `pipeline` in one transaction, with the target schema first in search_path. Columns are those of the
-- archive's tables, so that both ledgers are read alike; unsigned 64-bit numbers are stored by their bits.

CREATE TABLE schema_migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE schema_migrations IS 'made by pipeline: which numbered SQL files this schema has had';

-- A loader locks the row of a source before it looks for ranges that overlap its own: two loaders of one source
-- take turns, and loaders of different sources never meet.
CREATE TABLE sources (
    id         bigint  PRIMARY KEY,
    file       text    NOT NULL,
    device     bigint  NOT NULL,
    inode      bigint  NOT NULL,
    generation integer NOT NULL,
    head_len   integer NOT NULL,
    head_hash  bigint  NOT NULL
);
COMMENT ON TABLE sources IS 'made by pipeline: the newest identity of each stream of bytes';

CREATE TABLE chunks (
    chunk_id       bigint      NOT NULL,
    source_id      bigint      NOT NULL,
    file           text        NOT NULL,
    device         bigint      NOT NULL,
    inode          bigint      NOT NULL,
    generation     integer     NOT NULL,
    head_len       integer     NOT NULL,
    head_hash      bigint      NOT NULL,
    first_byte     bigint      NOT NULL,
    end_byte       bigint      NOT NULL,
    content_sha256 text        NOT NULL,
    lines          bigint      NOT NULL,
    rows           bigint      NOT NULL,
    rejects        bigint      NOT NULL,
    blanks         bigint      NOT NULL,
    types          jsonb       NOT NULL,
    min_timestamp  timestamptz,
    max_timestamp  timestamptz,
    line_ending    text        NOT NULL,
    final_newline  boolean     NOT NULL,
    piece          integer,
    piece_last     boolean,
    open           boolean     NOT NULL,
    reference_time timestamptz NOT NULL,
    committed_at   timestamptz NOT NULL DEFAULT now(),
    writer         text        NOT NULL,
    PRIMARY KEY (source_id, first_byte),
    -- a continuing piece of an over-long line begins no line: it counts 0 lines and 0 rejects
    CONSTRAINT every_line_is_accounted CHECK (lines = rows + rejects + blanks),
    CONSTRAINT bytes_are_a_range CHECK (0 <= first_byte AND first_byte < end_byte)
);
-- not unique: the id is a hash, and the full key decides
CREATE INDEX chunks_chunk_id_idx ON chunks (chunk_id);
COMMENT ON TABLE chunks IS 'made by pipeline: the ledger, one row per committed range of bytes';
COMMENT ON COLUMN chunks.types IS 'rows per log type, and the hash of the type file that read them (see log_types)';

CREATE TABLE rejects (
    chunk_id bigint  NOT NULL,
    line     integer NOT NULL,
    piece    integer NOT NULL,
    "offset" bigint  NOT NULL,
    file     text    NOT NULL,
    "column" integer NOT NULL,
    log_type text,
    reason   text    NOT NULL,
    bytes    bytea   NOT NULL
);
CREATE INDEX rejects_chunk_id_idx ON rejects (chunk_id);
COMMENT ON TABLE rejects IS 'made by pipeline: lines that no log type accepts, with their bytes, place and reason';

CREATE TABLE blanks (
    chunk_id bigint  NOT NULL,
    line     integer NOT NULL,
    bytes    bytea   NOT NULL
);
CREATE INDEX blanks_chunk_id_idx ON blanks (chunk_id);
COMMENT ON TABLE blanks IS 'made by pipeline: lines of white space only';

CREATE TABLE log_types (
    hash       text        PRIMARY KEY,
    name       text        NOT NULL,
    table_name text        NOT NULL,
    text       text        NOT NULL,
    first_seen timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE log_types IS 'made by pipeline: every version of a type file that rows were read with';
