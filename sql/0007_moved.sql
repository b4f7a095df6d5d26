-- Days that moved to an archive: how many rows of which chunk went with the leaf, so that counting still adds up.

CREATE TABLE moved (
    log_type text        NOT NULL,
    day      date        NOT NULL,
    chunk_id bigint      NOT NULL,
    rows     bigint      NOT NULL,
    archive  text        NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log_type, day, chunk_id)
);
CREATE INDEX moved_chunk_id_idx ON moved (chunk_id);
COMMENT ON TABLE moved IS 'made by pipeline: rows per chunk that are in an archive and not here any more';

SELECT pipeline_grant('moved');
