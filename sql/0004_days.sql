-- Leaves: one table per log type and day, made when its first row comes, with indexes when it is filled.
--
-- Order of locks, the same everywhere: the schema's advisory lock, the partitioned table, its default leaf, other
-- leaves. So two loaders never interleave, and nobody who holds a leaf waits for one who waits for it. These run
-- with the rights of the schema's owner, for only an owner may attach a leaf, and a loader need not be one.

-- Attaches the leaves of these days to a table of ours; rows of those days that wait in the default leaf move over.
CREATE FUNCTION pipeline_ensure_days(parent regclass, leaves text[], days date[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    schema_name name;
    default_leaf regclass;
    existing oid;
    leaf text;
    from_time text;
    end_time text;
    columns text;
    is_day record;
BEGIN
    SELECT namespace.nspname, nullif(partitioned.partdefid, 0)::regclass INTO schema_name, default_leaf
    FROM pg_class AS class
    JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    JOIN pg_partitioned_table AS partitioned ON partitioned.partrelid = class.oid
    WHERE class.oid = parent AND obj_description(class.oid, 'pg_class') LIKE 'made by pipeline: rows of %';
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is not a log type''s table', parent USING ERRCODE = 'wrong_object_type';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('pipeline ' || schema_name, 0));
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', parent);
    FOR is_day IN
        SELECT wanted.leaf, wanted.day FROM unnest(leaves, days) AS wanted (leaf, day) ORDER BY wanted.day
    LOOP
        leaf := format('%I.%I', schema_name, is_day.leaf);
        existing := to_regclass(leaf);
        CONTINUE WHEN EXISTS (SELECT FROM pg_inherits WHERE inhrelid = existing AND inhparent = parent);
        IF existing IS NOT NULL THEN
            RAISE EXCEPTION 'table % is in the way of a day of %', leaf, parent USING ERRCODE = 'duplicate_table';
        END IF;
        from_time := to_char(is_day.day, 'YYYY-MM-DD') || ' 00:00:00+00';
        end_time := to_char(is_day.day + 1, 'YYYY-MM-DD') || ' 00:00:00+00';
        EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', leaf, parent);
        EXECUTE format('COMMENT ON TABLE %s IS %L', leaf, 'made by pipeline: one day of ' || parent);
        IF default_leaf IS NOT NULL THEN
            -- attaching takes this lock anyway; taken here, no row of the day can come in between
            EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', default_leaf);
            SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns
            FROM pg_attribute WHERE attrelid = parent AND attnum > 0 AND NOT attisdropped;
            EXECUTE format(
                'WITH moved AS (DELETE FROM %1$s WHERE "timestamp" >= %3$L AND "timestamp" < %4$L RETURNING %5$s) '
                'INSERT INTO %2$s (%5$s) SELECT %5$s FROM moved',
                default_leaf, leaf, from_time, end_time, columns
            );
        END IF;
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
            parent, leaf, from_time, end_time);
        EXECUTE format('SELECT %I.pipeline_grant(%L)', schema_name, leaf);
    END LOOP;
END $$;

-- Makes the indexes that a leaf lacks; false where another process is at it. A plain CREATE INDEX, not a concurrent
-- one: it reads the leaf once, does not wait for every old transaction of the database, and leaves nothing behind
-- when it is killed. Rows that come meanwhile wait for it, so it is for leaves that are filled, or still small.
CREATE FUNCTION pipeline_build_indexes(leaf regclass, names text[], methods text[], columns text[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    schema_name name;
    existing record;
    wanted record;
BEGIN
    SELECT namespace.nspname INTO schema_name
    FROM pg_inherits AS inherits
    JOIN pg_class AS class ON class.oid = inherits.inhrelid
    JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    WHERE inherits.inhrelid = leaf
      AND obj_description(inherits.inhparent, 'pg_class') LIKE 'made by pipeline: rows of %';
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is not a leaf of a log type''s table', leaf USING ERRCODE = 'wrong_object_type';
    END IF;
    IF NOT pg_try_advisory_xact_lock(hashtextextended('pipeline indexes of ' || leaf::oid, 0)) THEN
        RETURN false;
    END IF;
    FOR wanted IN SELECT * FROM unnest(names, methods, columns) AS index (name, method, key) LOOP
        SELECT index.indrelid, index.indisvalid INTO existing
        FROM pg_class AS class
        JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        JOIN pg_index AS index ON index.indexrelid = class.oid
        WHERE namespace.nspname = schema_name AND class.relname = wanted.name;
        IF existing.indrelid = leaf THEN
            CONTINUE WHEN existing.indisvalid;
            -- someone's concurrent build was cut off
            EXECUTE format('DROP INDEX %I.%I', schema_name, wanted.name);
        END IF;
        BEGIN
            EXECUTE format('CREATE INDEX %I ON %s USING %I (%I)%s', wanted.name, leaf, wanted.method, wanted.key,
                CASE wanted.method WHEN 'brin' THEN ' WITH (pages_per_range = 32, autosummarize = on)' ELSE '' END);
        EXCEPTION WHEN program_limit_exceeded THEN
            -- a text beyond a third of a page, from before such texts were kept out of the column: a hash has no limit
            EXECUTE format('CREATE INDEX %I ON %s USING hash (%I)', wanted.name, leaf, wanted.key);
        END;
    END LOOP;
    RETURN true;
END $$;

DO $$
DECLARE
    -- both act with their owner's rights, so not everybody may call them
    signature text;
BEGIN
    FOREACH signature IN ARRAY ARRAY[
        'pipeline_ensure_days(regclass, text[], date[])', 'pipeline_build_indexes(regclass, text[], text[], text[])'
    ] LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', signature);
        IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pipeline_writer') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pipeline_writer', signature);
        END IF;
    END LOOP;
END $$;
