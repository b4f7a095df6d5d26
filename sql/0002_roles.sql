-- Two group roles: pipeline_writer loads, pipeline_analyst reads. Grant them to login roles.
--
-- Roles belong to the whole server, so another database may make them at the same moment; and a user who may not
-- make roles can still use the schema. Neither is an error. Privileges are granted table by table, as tables are
-- made, for the schema may hold tables that are not ours.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['pipeline_writer', 'pipeline_analyst'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL;
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role % does not exist and may not be made by %', wanted, current_user;
        END;
    END LOOP;
END $$;

-- Grants what the roles that exist need on one table or view of ours.
CREATE FUNCTION pipeline_grant(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    role record;
BEGIN
    FOR role IN
        SELECT name, privileges
        FROM (VALUES ('pipeline_writer', 'SELECT, INSERT, UPDATE, DELETE'), ('pipeline_analyst', 'SELECT'))
            AS wanted (name, privileges)
        WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = name)
    LOOP
        EXECUTE format('GRANT %s ON %s TO %I', role.privileges, relation, role.name);
    END LOOP;
END $$;

DO $$
DECLARE
    role text;
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['schema_migrations', 'sources', 'chunks', 'rejects', 'blanks', 'log_types'] LOOP
        PERFORM pipeline_grant(relation::regclass);
    END LOOP;
    FOR role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('pipeline_writer', 'pipeline_analyst') LOOP
        BEGIN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE NOTICE 'the owner of schema % has to grant % its usage', current_schema(), role;
        END;
    END LOOP;
END $$;
