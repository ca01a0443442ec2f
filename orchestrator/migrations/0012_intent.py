"""What people want of a job apart from how it stands; versions as bodies, with two digests."""

import json
from itertools import islice
from typing import Any

import pgtrigger.compiler
import pgtrigger.migrations
from django.conf import settings
from django.db import migrations, models

from orchestrator import spec


#: What runs goes on as it is: the versions since the oldest one run what the newest one says.
_GENERATIONS = """
    UPDATE orchestrator_execution e SET generation = v.generation
    FROM orchestrator_job j, orchestrator_jobversion v
    WHERE NOT e.settled AND j.id = e.job_id AND v.job_id = j.id
      AND v.number = CASE WHEN e.version >= j.oldest_version THEN j.version ELSE e.version END
"""

_SEEN = "UPDATE orchestrator_job SET seen_intent = 1 WHERE state <> 'pending'"

_AT_ONCE = 1000


def store_bodies(apps: Any, schema_editor: Any) -> None:
    """Store of each version what is not the default, with both digests of it."""
    versions = apps.get_model("orchestrator", "JobVersion").objects.order_by("pk")
    found = versions.values_list("pk", "spec").iterator(_AT_ONCE)
    while rows := list(islice(found, _AT_ONCE)):
        new = []
        for pk, stored in rows:
            try:
                body, *digests = spec.stored(spec.load(stored))
            except KeyError:  # It was never one.
                continue
            new.append((pk, json.dumps(body), *digests))
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(
                "UPDATE orchestrator_jobversion v SET spec = n.spec, digest = n.digest,"
                " generation = n.generation"
                " FROM unnest(%s::bigint[], %s::jsonb[], %s::text[], %s::text[])"
                " AS n(id, spec, digest, generation) WHERE v.id = n.id",
                [list(column) for column in zip(*new, strict=True)] or [[], [], [], []],
            )


class Migration(migrations.Migration):

    dependencies = [
        ('orchestrator', '0011_doors'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        pgtrigger.migrations.RemoveTrigger(
            model_name='execution',
            name='execution_moves',
        ),
        pgtrigger.migrations.RemoveTrigger(
            model_name='job',
            name='job_begins',
        ),
        pgtrigger.migrations.RemoveTrigger(
            model_name='job',
            name='job_moves',
        ),
        pgtrigger.migrations.RemoveTrigger(
            model_name='jobversion',
            name='version_stays',
        ),
        migrations.RemoveConstraint(
            model_name='job',
            name='job_numbers_are_counted',
        ),
        migrations.AddField(
            model_name='execution',
            name='generation',
            field=models.CharField(db_default='', default='', max_length=32),
        ),
        migrations.AddField(
            model_name='job',
            name='intent_rev',
            field=models.BigIntegerField(default=1, editable=False),
        ),
        migrations.AddField(
            model_name='job',
            name='seen_intent',
            field=models.BigIntegerField(default=0, editable=False),
        ),
        migrations.AddField(
            model_name='jobversion',
            name='generation',
            field=models.CharField(default='', max_length=32),
        ),
        migrations.RunPython(store_bodies, migrations.RunPython.noop),
        migrations.RunSQL(_SEEN, migrations.RunSQL.noop),
        migrations.RunSQL(_GENERATIONS, migrations.RunSQL.noop),
        migrations.RemoveField(
            model_name='job',
            name='oldest_version',
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='execution',
            trigger=pgtrigger.compiler.Trigger(name='execution_moves', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n    \n        IF (NEW.id, NEW.job_id, NEW.node_id, NEW.evaluation_id, NEW.version, NEW.generation, NEW.round, NEW.slot, NEW.attempt, NEW.cpu, NEW.memory, NEW.disk, NEW.gpu, NEW.created_at, NEW.rev, NEW.started_at, NEW.ended_at) IS DISTINCT FROM (OLD.id, OLD.job_id, OLD.node_id, OLD.evaluation_id, OLD.version, OLD.generation, OLD.round, OLD.slot, OLD.attempt, OLD.cpu, OLD.memory, OLD.disk, OLD.gpu, OLD.created_at, OLD.rev, OLD.started_at, OLD.ended_at)\n            OR NEW.order_rev < OLD.order_rev\n            OR NEW.told_rev < OLD.told_rev\n            OR NEW.settled < OLD.settled\n            OR NEW.reserved > OLD.reserved THEN\n            \n            RAISE EXCEPTION '% %: %', TG_TABLE_NAME, OLD.id, CASE \n                WHEN NEW.id IS DISTINCT FROM OLD.id\n                    THEN format('id never changes, from %s to %s', OLD.id, NEW.id)\n                WHEN NEW.job_id IS DISTINCT FROM OLD.job_id\n                    THEN format('job_id never changes, from %s to %s', OLD.job_id, NEW.job_id)\n                WHEN NEW.node_id IS DISTINCT FROM OLD.node_id\n                    THEN format('node_id never changes, from %s to %s', OLD.node_id, NEW.node_id)\n                WHEN NEW.evaluation_id IS DISTINCT FROM OLD.evaluation_id\n                    THEN format('evaluation_id never changes, from %s to %s', OLD.evaluation_id, NEW.evaluation_id)\n                WHEN NEW.version IS DISTINCT FROM OLD.version\n                    THEN format('version never changes, from %s to %s', OLD.version, NEW.version)\n                WHEN NEW.generation IS DISTINCT FROM OLD.generation\n                    THEN format('generation never changes, from %s to %s', OLD.generation, NEW.generation)\n                WHEN NEW.round IS DISTINCT FROM OLD.round\n                    THEN format('round never changes, from %s to %s', OLD.round, NEW.round)\n                WHEN NEW.slot IS DISTINCT FROM OLD.slot\n                    THEN format('slot never changes, from %s to %s', OLD.slot, NEW.slot)\n                WHEN NEW.attempt IS DISTINCT FROM OLD.attempt\n                    THEN format('attempt never changes, from %s to %s', OLD.attempt, NEW.attempt)\n                WHEN NEW.cpu IS DISTINCT FROM OLD.cpu\n                    THEN format('cpu never changes, from %s to %s', OLD.cpu, NEW.cpu)\n                WHEN NEW.memory IS DISTINCT FROM OLD.memory\n                    THEN format('memory never changes, from %s to %s', OLD.memory, NEW.memory)\n                WHEN NEW.disk IS DISTINCT FROM OLD.disk\n                    THEN format('disk never changes, from %s to %s', OLD.disk, NEW.disk)\n                WHEN NEW.gpu IS DISTINCT FROM OLD.gpu\n                    THEN format('gpu never changes, from %s to %s', OLD.gpu, NEW.gpu)\n                WHEN NEW.created_at IS DISTINCT FROM OLD.created_at\n                    THEN format('created_at never changes, from %s to %s', OLD.created_at, NEW.created_at)\n                WHEN NEW.rev IS DISTINCT FROM OLD.rev\n                    THEN format('rev is written by the trigger alone, from %s to %s', OLD.rev, NEW.rev)\n                WHEN NEW.started_at IS DISTINCT FROM OLD.started_at\n                    THEN format('started_at is written by the trigger alone, from %s to %s', OLD.started_at, NEW.started_at)\n                WHEN NEW.ended_at IS DISTINCT FROM OLD.ended_at\n                    THEN format('ended_at is written by the trigger alone, from %s to %s', OLD.ended_at, NEW.ended_at)\n                WHEN NEW.order_rev < OLD.order_rev\n                    THEN format('order_rev cannot go back, from %s to %s', OLD.order_rev, NEW.order_rev)\n                WHEN NEW.told_rev < OLD.told_rev\n                    THEN format('told_rev cannot go back, from %s to %s', OLD.told_rev, NEW.told_rev)\n                WHEN NEW.settled < OLD.settled\n                    THEN format('settled cannot go back, from %s to %s', OLD.settled, NEW.settled)\n                WHEN NEW.reserved > OLD.reserved\n                    THEN format('reserved cannot go back, from %s to %s', OLD.reserved, NEW.reserved)\n                END USING ERRCODE = 'check_violation';\n    \n        END IF;\n    \n    IF NEW.observed IS DISTINCT FROM OLD.observed OR NEW.desired IS DISTINCT FROM OLD.desired THEN\n        IF NEW.by_writer IS NULL THEN\n            RAISE EXCEPTION 'execution %: a change of state must say who makes it (by_writer)',\n                OLD.id USING ERRCODE = 'check_violation';\n        END IF;\n        NEW.rev := OLD.rev + 1;\n        IF NEW.observed IS DISTINCT FROM OLD.observed THEN\n            IF NOT (OLD.observed || '>' || NEW.observed || '>' || NEW.by_writer)\n                   = ANY (ARRAY['ask_for_bid>ask_for_bid_accepted>endpoint', 'ask_for_bid>ask_for_bid_rejected>endpoint', 'ask_for_bid>cancelled>compute-forwarder', 'ask_for_bid>cancelled>endpoint', 'ask_for_bid>lost>endpoint', 'ask_for_bid_accepted>ask_for_bid_rejected>endpoint', 'ask_for_bid_accepted>bid_accepted>compute-forwarder', 'ask_for_bid_accepted>bid_rejected>compute-forwarder', 'ask_for_bid_accepted>cancelled>compute-forwarder', 'ask_for_bid_accepted>cancelled>endpoint', 'ask_for_bid_accepted>lost>endpoint', 'bid_accepted>ask_for_bid_rejected>endpoint', 'bid_accepted>cancelled>compute-forwarder', 'bid_accepted>cancelled>endpoint', 'bid_accepted>failed>endpoint', 'bid_accepted>lost>endpoint', 'bid_accepted>preparing>endpoint', 'bid_accepted>running>endpoint', 'new>ask_for_bid>compute-forwarder', 'new>bid_accepted>compute-forwarder', 'new>cancelled>compute-forwarder', 'new>cancelled>endpoint', 'new>lost>endpoint', 'preparing>cancelled>compute-forwarder', 'preparing>cancelled>endpoint', 'preparing>failed>endpoint', 'preparing>lost>endpoint', 'preparing>running>endpoint', 'publishing>cancelled>compute-forwarder', 'publishing>cancelled>endpoint', 'publishing>completed>endpoint', 'publishing>failed>endpoint', 'publishing>lost>endpoint', 'running>cancelled>compute-forwarder', 'running>cancelled>endpoint', 'running>completed>endpoint', 'running>failed>endpoint', 'running>lost>endpoint', 'running>publishing>endpoint']::text[]) THEN\n                RAISE EXCEPTION 'execution %: observed cannot go from % to % by the %',\n                    OLD.id, OLD.observed, NEW.observed, NEW.by_writer\n                    USING ERRCODE = 'check_violation';\n            END IF;\n            IF OLD.desired = 'stopped' AND NEW.observed = ANY (ARRAY['bid_accepted']::text[])\n               AND NOT EXISTS (SELECT FROM orchestrator_executionhistory WHERE execution_id = OLD.id\n                               AND lane = 'desired' AND after = 'running') THEN\n                RAISE EXCEPTION 'execution %: cannot be %, nobody has approved it',\n                    OLD.id, NEW.observed USING ERRCODE = 'check_violation';\n            END IF;\n            INSERT INTO orchestrator_executionhistory\n                (execution_id, rev, lane, before, after, writer, actor, reason, at)\n            VALUES (NEW.id, NEW.rev, 'observed', OLD.observed, NEW.observed, NEW.by_writer,\n                    coalesce(NEW.by_actor, ''), coalesce(NEW.by_reason, ''), clock_timestamp());\n            IF NEW.observed = 'running' THEN\n                NEW.started_at := coalesce(NEW.started_at, clock_timestamp());\n            END IF;\n        END IF;\n        IF NEW.observed = ANY (ARRAY['ask_for_bid_rejected', 'bid_rejected', 'cancelled', 'completed', 'failed', 'lost']::text[]) THEN\n            NEW.ended_at := coalesce(OLD.ended_at, clock_timestamp());\n            IF OLD.desired <> 'stopped' THEN\n                NEW.desired := 'stopped';\n                INSERT INTO orchestrator_executionhistory\n                    (execution_id, rev, lane, before, after, writer, actor, reason, at)\n                VALUES (NEW.id, NEW.rev, 'desired', OLD.desired, NEW.desired, NEW.by_writer,\n                        coalesce(NEW.by_actor, ''), 'it is ' || NEW.observed, clock_timestamp());\n            ELSIF NEW.desired <> 'stopped' THEN\n                RAISE EXCEPTION 'execution %: desired cannot go back from stopped', OLD.id\n                    USING ERRCODE = 'check_violation';\n            END IF;\n        ELSIF NEW.desired IS DISTINCT FROM OLD.desired THEN\n            IF NOT (OLD.desired || '>' || NEW.desired || '>' || NEW.by_writer)\n                   = ANY (ARRAY['pending>running>state-updater', 'pending>stopped>state-updater', 'running>stopped>state-updater']::text[]) THEN\n                RAISE EXCEPTION 'execution %: desired cannot go from % to % by the %',\n                    OLD.id, OLD.desired, NEW.desired, NEW.by_writer\n                    USING ERRCODE = 'check_violation';\n            END IF;\n            INSERT INTO orchestrator_executionhistory\n                (execution_id, rev, lane, before, after, writer, actor, reason, at)\n            VALUES (NEW.id, NEW.rev, 'desired', OLD.desired, NEW.desired, NEW.by_writer,\n                    coalesce(NEW.by_actor, ''), coalesce(NEW.by_reason, ''), clock_timestamp());\n        END IF;\n    ELSE\n        NEW.rev := OLD.rev;\n    END IF;\n    NEW.by_writer := NULL;\n    NEW.by_actor := NULL;\n    NEW.by_reason := NULL;\n    RETURN NEW;\n", hash='ff30839a8cf481f4799e118f3a58a6235b1f6f03', operation='UPDATE', pgid='pgtrigger_execution_moves_20113', table='orchestrator_execution', when='BEFORE')),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='job',
            trigger=pgtrigger.compiler.Trigger(name='job_begins', sql=pgtrigger.compiler.UpsertTriggerSql(condition="WHEN (NEW.state <> 'pending' OR (NEW.version, NEW.round, NEW.rev, NEW.intent_rev, NEW.seen_intent) <> (1, 1, 1, 1, 0))", func="\n            RAISE EXCEPTION '%: a job begins pending, in its first version, round and revision', TG_TABLE_NAME USING ERRCODE = 'check_violation';\n        ", hash='77f36abc58190c41b81be9ba0a5602ab8a3ad51c', operation='INSERT', pgid='pgtrigger_job_begins_64f57', table='orchestrator_job', when='BEFORE')),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='job',
            trigger=pgtrigger.compiler.Trigger(name='job_moves', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n        IF (NEW.id, NEW.namespace_id, NEW.name, NEW.created_at, NEW.rev, NEW.updated_at, NEW.ended_at, NEW.intent_rev) IS DISTINCT FROM (OLD.id, OLD.namespace_id, OLD.name, OLD.created_at, OLD.rev, OLD.updated_at, OLD.ended_at, OLD.intent_rev)\n            OR NEW.version < OLD.version\n            OR NEW.round < OLD.round\n            OR NEW.seen_intent < OLD.seen_intent THEN\n            \n            RAISE EXCEPTION '% %: %', TG_TABLE_NAME, OLD.id, CASE \n                WHEN NEW.id IS DISTINCT FROM OLD.id\n                    THEN format('id never changes, from %s to %s', OLD.id, NEW.id)\n                WHEN NEW.namespace_id IS DISTINCT FROM OLD.namespace_id\n                    THEN format('namespace_id never changes, from %s to %s', OLD.namespace_id, NEW.namespace_id)\n                WHEN NEW.name IS DISTINCT FROM OLD.name\n                    THEN format('name never changes, from %s to %s', OLD.name, NEW.name)\n                WHEN NEW.created_at IS DISTINCT FROM OLD.created_at\n                    THEN format('created_at never changes, from %s to %s', OLD.created_at, NEW.created_at)\n                WHEN NEW.rev IS DISTINCT FROM OLD.rev\n                    THEN format('rev is written by the trigger alone, from %s to %s', OLD.rev, NEW.rev)\n                WHEN NEW.updated_at IS DISTINCT FROM OLD.updated_at\n                    THEN format('updated_at is written by the trigger alone, from %s to %s', OLD.updated_at, NEW.updated_at)\n                WHEN NEW.ended_at IS DISTINCT FROM OLD.ended_at\n                    THEN format('ended_at is written by the trigger alone, from %s to %s', OLD.ended_at, NEW.ended_at)\n                WHEN NEW.intent_rev IS DISTINCT FROM OLD.intent_rev\n                    THEN format('intent_rev is written by the trigger alone, from %s to %s', OLD.intent_rev, NEW.intent_rev)\n                WHEN NEW.version < OLD.version\n                    THEN format('version cannot go back, from %s to %s', OLD.version, NEW.version)\n                WHEN NEW.round < OLD.round\n                    THEN format('round cannot go back, from %s to %s', OLD.round, NEW.round)\n                WHEN NEW.seen_intent < OLD.seen_intent\n                    THEN format('seen_intent cannot go back, from %s to %s', OLD.seen_intent, NEW.seen_intent)\n                END USING ERRCODE = 'check_violation';\n    \n        END IF;\n    \n                NEW.intent_rev := OLD.intent_rev;\n                IF (NEW.type, NEW.version, NEW.round, NEW.round_at, NEW.count, NEW.priority, NEW.labels, NEW.stop_requested, NEW.stop_reason, NEW.stopped_by) IS DISTINCT FROM (OLD.type, OLD.version, OLD.round, OLD.round_at, OLD.count, OLD.priority, OLD.labels, OLD.stop_requested, OLD.stop_reason, OLD.stopped_by) THEN\n                    NEW.intent_rev := OLD.intent_rev + 1;\n                    IF NEW.round <> OLD.round THEN\n                        NEW.tally := '{}';\n                    END IF;\n                    IF NEW.round_at <> OLD.round_at AND OLD.state = ANY (ARRAY['completed', 'failed', 'stopped']::text[]) THEN\n                        NEW.state := 'pending';\n                        NEW.reason := '[]';\n                    END IF;\n                END IF;\n            \n        IF NEW.state IS DISTINCT FROM OLD.state\n           AND NOT (OLD.state || '>' || NEW.state) = ANY (ARRAY['completed>pending', 'failed>pending', 'pending>completed', 'pending>failed', 'pending>queued', 'pending>running', 'pending>stopped', 'queued>completed', 'queued>failed', 'queued>running', 'queued>stopped', 'running>completed', 'running>failed', 'running>queued', 'running>stopped', 'stopped>pending']::text[]) THEN\n            RAISE EXCEPTION '% %: state cannot go from % to %',\n                TG_TABLE_NAME, OLD.id, OLD.state, NEW.state\n                USING ERRCODE = 'check_violation';\n        END IF;\n    \n                NEW.rev := OLD.rev + 1;\n                NEW.updated_at := clock_timestamp();\n                IF NEW.state = ANY (ARRAY['completed', 'failed', 'stopped']::text[]) THEN\n                    NEW.ended_at := coalesce(OLD.ended_at, NEW.updated_at);\n                ELSE\n                    NEW.ended_at := NULL;\n                END IF;\n                RETURN NEW;\n            ", hash='a33cdb8a1990bf69c0c84b700efa2d9bc72e05ec', operation='UPDATE', pgid='pgtrigger_job_moves_e98d8', table='orchestrator_job', when='BEFORE')),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='jobversion',
            trigger=pgtrigger.compiler.Trigger(name='version_stays', sql=pgtrigger.compiler.UpsertTriggerSql(condition='WHEN ((NEW.id, NEW.job_id, NEW.number, NEW.spec, NEW.digest, NEW.generation, NEW.created_at, NEW.actor) IS DISTINCT FROM (OLD.id, OLD.job_id, OLD.number, OLD.spec, OLD.digest, OLD.generation, OLD.created_at, OLD.actor))', func="\n            RAISE EXCEPTION '%: a version is never changed; submit a new one', TG_TABLE_NAME USING ERRCODE = 'check_violation';\n        ", hash='1965df372b9728409a0876709dbfe95d1fbedafe', operation='UPDATE', pgid='pgtrigger_version_stays_3b912', table='orchestrator_jobversion', when='BEFORE')),
        ),
        migrations.AddConstraint(
            model_name='job',
            constraint=models.CheckConstraint(condition=models.Q(('round__gte', 1), ('seen_intent__lte', models.F('intent_rev')), ('version__gte', 1)), name='job_numbers_are_counted'),
        ),
    ]
