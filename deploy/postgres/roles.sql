-- A PostgreSQL role for each service that has tables: it owns its own schema, and no other's. Named after the database: in
-- `sluice` they are sluice_edge, sluice_metrics and sluice_analyst. To be run in it by a superuser, or by its owner with
-- CREATEROLE, as often as you like; a role without a password can't come in, so give it one: psql's \password sluice_edge.
-- What one role for all had so far goes over to them, and that role may go on using it, so that running services do.
SET lock_timeout = '5s';

DO $roles$
DECLARE
    service text;
    own_role text;
    former oid;
    change text;
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    FOREACH service IN ARRAY ARRAY['edge', 'metrics', 'analyst'] LOOP
        own_role := current_database() || '_' || service;
        IF to_regrole(quote_ident(own_role)) IS NULL THEN
            EXECUTE format('CREATE ROLE %I LOGIN', own_role);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), own_role);

        former := (SELECT nspowner FROM pg_namespace WHERE nspname = service);
        FOR change IN  -- members of a role may do what it may: give it what they have, or use what they had
            SELECT format('GRANT %I TO %I', own_role, rolname) FROM pg_roles
            WHERE oid IN (former, to_regrole(quote_ident(current_user))) AND rolname <> own_role AND NOT rolsuper
        LOOP
            EXECUTE change;
        END LOOP;

        EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', service, own_role);
        FOR change IN
            SELECT format('SCHEMA %I', nspname) FROM pg_namespace
            WHERE nspname = service AND nspowner <> to_regrole(quote_ident(own_role))
            UNION ALL
            SELECT format('TABLE %s', oid::regclass) FROM pg_class
            WHERE relnamespace = to_regnamespace(service) AND relkind IN ('r', 'p')
                AND relowner <> to_regrole(quote_ident(own_role))
            UNION ALL
            SELECT format('FUNCTION %s', oid::regprocedure) FROM pg_proc
            WHERE pronamespace = to_regnamespace(service) AND proowner <> to_regrole(quote_ident(own_role))
        LOOP
            EXECUTE format('ALTER %s OWNER TO %I', change, own_role);
        END LOOP;
    END LOOP;
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), current_database() || '_metrics');
END
$roles$;
