-- What became of the items of manifests; "work" names what is done with them.
CREATE TABLE fetches (
    work       TEXT NOT NULL,
    item       TEXT NOT NULL,
    name       TEXT NOT NULL,
    url        TEXT NOT NULL,
    done       INTEGER NOT NULL,
    stage      TEXT,
    error      TEXT,
    size       INTEGER NOT NULL,
    etag       TEXT,
    sha256     TEXT,
    changed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (work, item)
) STRICT
