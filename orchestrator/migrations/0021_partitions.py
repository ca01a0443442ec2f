"""The journal lies in a table for each week, so that what is over is dropped and not deleted.

What is there is kept in one partition for all that was before, without being copied.
"""

import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations

_PARTITIONED = """
    ALTER TABLE orchestrator_namespace ALTER COLUMN journal_from DROP DEFAULT;
    CREATE SEQUENCE orchestrator_event_number;
    SELECT setval('orchestrator_event_number', last) FROM (
        SELECT pg_sequence_last_value('orchestrator_event_id_seq') AS last) given
    WHERE last IS NOT NULL;
    ALTER TABLE orchestrator_event ALTER COLUMN id DROP IDENTITY;
    ALTER SEQUENCE orchestrator_event_number RENAME TO orchestrator_event_id_seq;
    ALTER TABLE orchestrator_event RENAME TO orchestrator_event_before;
    ALTER TABLE orchestrator_event_before DROP CONSTRAINT orchestrator_event_pkey;
    ALTER INDEX event_of_job RENAME TO orchestrator_event_before_of_job;
    ALTER INDEX event_of_namespace RENAME TO orchestrator_event_before_of_namespace;
    ALTER INDEX event_of_node RENAME TO orchestrator_event_before_of_node;

    CREATE TABLE orchestrator_event (
        LIKE orchestrator_event_before INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
        CONSTRAINT orchestrator_event_pkey PRIMARY KEY (id, at)
    ) PARTITION BY RANGE (at);
    ALTER TABLE orchestrator_event
        ALTER COLUMN id SET DEFAULT nextval('orchestrator_event_id_seq');
    ALTER SEQUENCE orchestrator_event_id_seq OWNED BY orchestrator_event.id;
    ALTER TABLE orchestrator_namespace
        ALTER COLUMN journal_from SET DEFAULT nextval('orchestrator_event_id_seq');
    CREATE INDEX event_of_job ON orchestrator_event (job_id, id DESC);
    CREATE INDEX event_of_namespace ON orchestrator_event (namespace, id DESC);
    CREATE INDEX event_of_node ON orchestrator_event (node_id, id DESC)
        WHERE node_id IS NOT NULL;
    CREATE TABLE orchestrator_event_default PARTITION OF orchestrator_event DEFAULT;
"""

#: What a clock that was wrong has dated later than this week waits in the default partition.
_BEFORE = """
    DO $$
    DECLARE
        monday timestamptz :=
            date_trunc('week', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + interval '168 hours';
        name text := 'orchestrator_event_before_'
                     || to_char(monday AT TIME ZONE 'UTC', 'IYYY"w"IW');
    BEGIN
        WITH later AS (DELETE FROM orchestrator_event_before WHERE at >= monday RETURNING *)
        INSERT INTO orchestrator_event_default SELECT * FROM later;
        IF NOT EXISTS (SELECT FROM orchestrator_event_before) THEN
            DROP TABLE orchestrator_event_before;
            RETURN;
        END IF;
        EXECUTE format('ALTER TABLE orchestrator_event_before RENAME TO %I', name);
        EXECUTE format('ALTER TABLE orchestrator_event ATTACH PARTITION %I'
                       ' FOR VALUES FROM (MINVALUE) TO (%L)', name, monday);
    END $$;
"""

#: They belong to the owner of the schema, as the application's role makes and drops nothing.
_FUNCTIONS = """
    CREATE FUNCTION orchestrator_event_weeks(OUT name text, OUT begins timestamptz,
                                             OUT ends timestamptz) RETURNS SETOF record
    LANGUAGE sql STABLE
    SET search_path = public, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
    AS $$
        SELECT c.relname::text,
               substring(bounds from $f$FROM \\('([^']+)'\\)$f$)::timestamptz,
               substring(bounds from $t$TO \\('([^']+)'\\)$t$)::timestamptz
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid,
        LATERAL pg_get_expr(c.relpartbound, c.oid) AS bounds
        WHERE i.inhparent = 'public.orchestrator_event'::regclass AND bounds <> 'DEFAULT'
    $$;
    COMMENT ON FUNCTION orchestrator_event_weeks IS
        'The partitions of the journal; what was there before them begins at no time.';

    CREATE FUNCTION orchestrator_open_event_weeks(ahead integer) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
    SET lock_timeout = '100ms'
    AS $$
    DECLARE
        weeks timestamptz[];
        monday timestamptz;
        name text;
        made text[] := '{}';
        strays boolean;
    BEGIN
        IF NOT pg_try_advisory_xact_lock(7310293700521193573) THEN
            RETURN made;
        END IF;
        strays := EXISTS (SELECT FROM orchestrator_event_default);
        weeks := ARRAY(SELECT date_trunc('week', now()) + n * interval '168 hours'
                       FROM generate_series(0, least(ahead, 53)) n);
        IF strays THEN
            LOCK TABLE orchestrator_event IN ACCESS EXCLUSIVE MODE;
            ALTER TABLE orchestrator_event DETACH PARTITION orchestrator_event_default;
            ALTER TABLE orchestrator_event_default RENAME TO orchestrator_event_strays;
            CREATE TABLE orchestrator_event_default PARTITION OF orchestrator_event DEFAULT;
            weeks := weeks || ARRAY(SELECT DISTINCT date_trunc('week', at)
                                    FROM orchestrator_event_strays);
        END IF;
        FOREACH monday IN ARRAY weeks LOOP
            CONTINUE WHEN EXISTS (
                SELECT FROM orchestrator_event_weeks() w
                WHERE coalesce(w.begins <= monday, true) AND monday < w.ends);
            name := 'orchestrator_event_' || to_char(monday, 'IYYY"w"IW');
            EXECUTE format('CREATE TABLE %I (LIKE orchestrator_event INCLUDING DEFAULTS'
                           ' INCLUDING CONSTRAINTS)', name);
            -- Attached, it keeps nobody from writing; made as a partition it would.
            EXECUTE format('ALTER TABLE orchestrator_event ATTACH PARTITION %I'
                           ' FOR VALUES FROM (%L) TO (%L)',
                           name, monday, monday + interval '168 hours');
            made := made || name;
        END LOOP;
        IF strays THEN
            INSERT INTO orchestrator_event SELECT * FROM orchestrator_event_strays ORDER BY id;
            DROP TABLE orchestrator_event_strays;
        END IF;
        RETURN made;
    END $$;

    CREATE FUNCTION orchestrator_drop_event_weeks(before timestamptz) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
    SET lock_timeout = '100ms'
    AS $$
    DECLARE
        name text;
        dropped text[] := '{}';
    BEGIN
        IF NOT pg_try_advisory_xact_lock(7310293700521193573) THEN
            RETURN dropped;
        END IF;
        FOR name IN
            SELECT w.name FROM orchestrator_event_weeks() w
            WHERE w.ends <= least(before, now() - interval '168 hours') ORDER BY w.ends
        LOOP
            LOCK TABLE orchestrator_event IN ACCESS EXCLUSIVE MODE;
            EXECUTE format('DROP TABLE %I', name);
            dropped := dropped || name;
        END LOOP;
        RETURN dropped;
    END $$;

    REVOKE ALL ON FUNCTION orchestrator_open_event_weeks, orchestrator_drop_event_weeks FROM PUBLIC;
    SELECT orchestrator_open_event_weeks(5);
"""

_WHOLE = """
    ALTER TABLE orchestrator_namespace ALTER COLUMN journal_from DROP DEFAULT;
    DROP FUNCTION orchestrator_open_event_weeks, orchestrator_drop_event_weeks;
    DROP FUNCTION orchestrator_event_weeks;
    ALTER TABLE orchestrator_event RENAME TO orchestrator_event_parted;
    ALTER INDEX orchestrator_event_pkey RENAME TO orchestrator_event_parted_pkey;
    ALTER INDEX event_of_job RENAME TO event_parted_of_job;
    ALTER INDEX event_of_namespace RENAME TO event_parted_of_namespace;
    ALTER INDEX event_of_node RENAME TO event_parted_of_node;
    ALTER SEQUENCE orchestrator_event_id_seq RENAME TO orchestrator_event_parted_id_seq;
    CREATE TABLE orchestrator_event (
        LIKE orchestrator_event_parted INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
    ALTER TABLE orchestrator_event ALTER COLUMN id DROP DEFAULT;
    ALTER TABLE orchestrator_event ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY;
    SELECT setval('orchestrator_event_id_seq', last) FROM (
        SELECT pg_sequence_last_value('orchestrator_event_parted_id_seq') AS last) given
    WHERE last IS NOT NULL;
    INSERT INTO orchestrator_event SELECT * FROM orchestrator_event_parted ORDER BY id;
    DROP TABLE orchestrator_event_parted;
    ALTER TABLE orchestrator_event ADD CONSTRAINT orchestrator_event_pkey PRIMARY KEY (id);
    CREATE INDEX event_of_job ON orchestrator_event (job_id, id DESC);
    CREATE INDEX event_of_namespace ON orchestrator_event (namespace, id DESC);
    CREATE INDEX event_of_node ON orchestrator_event (node_id, id DESC)
        WHERE node_id IS NOT NULL;
    ALTER TABLE orchestrator_namespace
        ALTER COLUMN journal_from SET DEFAULT nextval('orchestrator_event_id_seq');
"""


def _triggers():
    return [
        ("event_stays", pgtrigger.compiler.Trigger(name='event_stays', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n            RAISE EXCEPTION '%: what is written here is neither changed nor deleted', TG_TABLE_NAME USING ERRCODE = 'check_violation';\n        ", hash='3cfaaf0685affda4520381fbd6014158de86a3cc', operation='UPDATE OR DELETE', pgid='pgtrigger_event_stays_98767', table='orchestrator_event', when='BEFORE'))),
        ("event_is_announced", pgtrigger.compiler.Trigger(name='event_is_announced', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n                PERFORM pg_advisory_xact_lock_shared(7669348690435244032 + coalesce(pg_sequence_last_value('orchestrator_event_id_seq'), 0));\n                RETURN NULL;\n            ", hash='d483ca4913a6996b126b8ab0935e7d2e4f382c13', level='STATEMENT', operation='INSERT', pgid='pgtrigger_event_is_announced_ade62', table='orchestrator_event', when='BEFORE'))),
    ]


class Migration(migrations.Migration):

    dependencies = [
        ('orchestrator', '0020_steps_at_once'),
    ]

    operations = [
        *(
            pgtrigger.migrations.RemoveTrigger(model_name='event', name=name)
            for name, _ in _triggers()
        ),
        migrations.RunSQL(_PARTITIONED, _WHOLE),
        migrations.RunSQL(_BEFORE, migrations.RunSQL.noop),
        migrations.RunSQL(_FUNCTIONS, migrations.RunSQL.noop),
        *(
            pgtrigger.migrations.AddTrigger(model_name='event', trigger=trigger)
            for _, trigger in _triggers()
        ),
    ]
