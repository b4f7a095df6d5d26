-- One index per call, of one or several columns, so that two connections may index one leaf.

DROP FUNCTION pipeline_build_indexes(regclass, text[], text[], text[]);

-- Makes an index that a leaf lacks; false where another process is at it. A plain CREATE INDEX, not a concurrent one:
-- it reads the leaf once, does not wait for every old transaction of the database, and leaves nothing behind when it
-- is killed. Rows that come meanwhile wait for it, so it is for leaves that are filled, or still small.
CREATE FUNCTION pipeline_build_index(leaf regclass, index_name text, method text, columns text[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    schema_name name;
    existing record;
    key text;
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
    IF NOT pg_try_advisory_xact_lock(hashtextextended('pipeline index ' || leaf::oid || ' ' || index_name, 0)) THEN
        RETURN false;
    END IF;
    SELECT index.indrelid, index.indisvalid INTO existing
    FROM pg_class AS class
    JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    JOIN pg_index AS index ON index.indexrelid = class.oid
    WHERE namespace.nspname = schema_name AND class.relname = index_name;
    IF existing.indrelid = leaf THEN
        IF existing.indisvalid THEN
            RETURN true;
        END IF;
        -- someone's concurrent build was cut off
        EXECUTE format('DROP INDEX %I.%I', schema_name, index_name);
    END IF;
    SELECT string_agg(quote_ident(name), ', ' ORDER BY position) INTO key
    FROM unnest(columns) WITH ORDINALITY AS indexed (name, position);
    BEGIN
        EXECUTE format('CREATE INDEX %I ON %s USING %I (%s)%s', index_name, leaf, method, key,
            CASE method WHEN 'brin' THEN ' WITH (pages_per_range = 32, autosummarize = on)' ELSE '' END);
    EXCEPTION WHEN program_limit_exceeded THEN
        -- a text beyond a third of a page, from before such texts were kept out of the column: a hash has no limit,
        -- but takes one column
        EXECUTE format('CREATE INDEX %I ON %s USING hash (%I)', index_name, leaf, columns[1]);
    END;
    RETURN true;
END $$;

-- Analysts only read.
DO $$
BEGIN
    REVOKE EXECUTE ON FUNCTION pipeline_build_index(regclass, text, text, text[]) FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pipeline_writer') THEN
        GRANT EXECUTE ON FUNCTION pipeline_build_index(regclass, text, text, text[]) TO pipeline_writer;
    END IF;
END $$;
