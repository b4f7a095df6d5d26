-- Several databases by log type: every one has an entry of every chunk, and the names of the tables that went to others.

ALTER TABLE chunks ADD COLUMN elsewhere text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN chunks.elsewhere IS
    'tables (log types, rejects, blanks) whose rows of this chunk are in other places; rows, rejects, blanks and types count all of it';

-- whether a schema has such chunks is asked whenever a writer starts
CREATE INDEX chunks_elsewhere_idx ON chunks (source_id, first_byte) WHERE elsewhere <> '{}';
