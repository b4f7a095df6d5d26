-- A day may be detached while loaders have it in mind.

-- An error, undefined_table, unless all of these are leaves of the table. Asked with the table locked, so that none
-- of them is detached before the transaction ends.
CREATE FUNCTION pipeline_expect_days(parent regclass, leaves text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing text;
BEGIN
    SELECT min(wanted.leaf) INTO missing FROM unnest(leaves) AS wanted (leaf)
    WHERE NOT EXISTS (
        SELECT FROM pg_inherits AS inherits JOIN pg_class AS class ON class.oid = inherits.inhrelid
        WHERE inherits.inhparent = parent AND class.relname = wanted.leaf
    );
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table % is no day of % any more', missing, parent USING ERRCODE = 'undefined_table';
    END IF;
END $$;
