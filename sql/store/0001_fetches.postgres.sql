-- What became of the items of manifests; "work" names what is done with them.
CREATE TABLE fetches (
    work       text NOT NULL,
    item       text NOT NULL,
    name       text NOT NULL,
    url        text NOT NULL,
    done       boolean NOT NULL,
    stage      text,
    error      text,
    size       bigint NOT NULL,
    etag       text,
    sha256     text,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (work, item)
)
