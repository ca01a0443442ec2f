"""What executions are looked up by while they live, in tables of its own.

Their own indexes look at nothing that changes: so a change costs no entry in any of them.
"""

import django.db.models.deletion
import pgtrigger.compiler
import pgtrigger.migrations
from django.conf import settings
from django.db import migrations, models


_LIVE = """
    INSERT INTO orchestrator_liveexecution (execution_id, job_id, slot, node_id, is_wanted, record)
    SELECT e.id, e.job_id, e.slot, e.node_id, nullif(e.desired = 'running', false), CASE
        WHEN j.count >= 100 AND e.desired = 'running' AND e.observed = 'running' AND e.started_at IS NOT NULL
             AND e.generation = (SELECT generation FROM orchestrator_jobversion v
                                 WHERE v.job_id = e.job_id AND v.number = e.version)
        THEN uuid_send(e.id) || uuid_send(e.node_id) || int4send(e.slot) || int4send(e.attempt)
             || int4send(e.version) || int4send(e.round)
             || timestamptz_send(e.created_at) || timestamptz_send(e.started_at) END
    FROM orchestrator_execution e JOIN orchestrator_job j ON j.id = e.job_id
    WHERE NOT e.settled OR e.reserved
"""

_UNTOLD = """
    INSERT INTO orchestrator_untoldorder (node_id, rev, execution_id)
    SELECT node_id, order_rev, id FROM orchestrator_execution WHERE order_rev > told_rev
"""

#: Room in each page for what its rows become, and for what was in them.
_ROOM = """
    ALTER TABLE orchestrator_execution SET (fillfactor = 70);
    ALTER TABLE orchestrator_job SET (fillfactor = 70);
    ALTER TABLE orchestrator_evaluation SET (fillfactor = 80);
    ALTER TABLE orchestrator_liveexecution SET (
        fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,
        autovacuum_vacuum_cost_delay = 0);
    ALTER TABLE orchestrator_untoldorder SET (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,
        autovacuum_vacuum_cost_delay = 0);
"""

_AS_BEFORE = """
    ALTER TABLE orchestrator_execution RESET (fillfactor);
    ALTER TABLE orchestrator_job RESET (fillfactor);
    ALTER TABLE orchestrator_evaluation RESET (fillfactor);
"""


class Migration(migrations.Migration):

    dependencies = [
        ('nodes', '0009_rejected_for_good'),
        ('orchestrator', '0016_feed_of_events'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='LiveExecution',
            fields=[
                ('execution', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, primary_key=True, related_name='live', serialize=False, to='orchestrator.execution')),
                ('slot', models.IntegerField()),
                ('is_wanted', models.BooleanField(null=True)),
                ('record', models.BinaryField(null=True)),
                ('job', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='orchestrator.job')),
                ('node', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='nodes.node')),
            ],
        ),
        migrations.CreateModel(
            name='UntoldOrder',
            fields=[
                ('pk', models.CompositePrimaryKey('node', 'rev', 'execution', blank=True, editable=False, primary_key=True, serialize=False)),
                ('rev', models.BigIntegerField()),
                ('execution', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='orchestrator.execution')),
                ('node', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='nodes.node')),
            ],
        ),
        pgtrigger.migrations.RemoveTrigger(
            model_name='execution',
            name='execution_begins',
        ),
        pgtrigger.migrations.RemoveTrigger(
            model_name='execution',
            name='execution_moves',
        ),
        migrations.RemoveConstraint(
            model_name='execution',
            name='one_wanted_execution_per_slot',
        ),
        migrations.RemoveIndex(
            model_name='event',
            name='event_of_node',
        ),
        migrations.RemoveIndex(
            model_name='execution',
            name='execution_unsettled',
        ),
        migrations.RemoveIndex(
            model_name='execution',
            name='execution_untold',
        ),
        migrations.RemoveIndex(
            model_name='execution',
            name='execution_reserved',
        ),
        migrations.RemoveIndex(
            model_name='execution',
            name='execution_of_evaluation',
        ),
        migrations.RemoveIndex(
            model_name='execution',
            name='execution_failed',
        ),
        migrations.AlterField(
            model_name='job',
            name='created_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='jobversion',
            name='created_by',
            field=models.ForeignKey(blank=True, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='jobversion',
            name='job',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='versions', to='orchestrator.job'),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(condition=models.Q(('node_id__isnull', False)), fields=['node_id', '-id'], name='event_of_node'),
        ),
        migrations.AddIndex(
            model_name='executionhistory',
            index=models.Index(condition=models.Q(('after', 'failed'), ('lane', 'observed')), fields=['-at'], name='history_of_failures'),
        ),
        migrations.RunSQL(_LIVE, migrations.RunSQL.noop),
        migrations.RunSQL(_UNTOLD, migrations.RunSQL.noop),
        migrations.RunSQL(_ROOM, _AS_BEFORE),
        pgtrigger.migrations.AddTrigger(
            model_name='execution',
            trigger=pgtrigger.compiler.Trigger(name='execution_begins', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n    IF NEW.by_writer IS DISTINCT FROM 'state-updater' THEN\n        RAISE EXCEPTION 'execution %: only the state-updater creates executions, not %',\n            NEW.id, coalesce(NEW.by_writer, 'nobody') USING ERRCODE = 'check_violation';\n    END IF;\n    IF NEW.observed <> 'new' OR NEW.desired = 'stopped'\n       OR NEW.told_rev <> 0 OR NEW.started_at IS NOT NULL THEN\n        RAISE EXCEPTION 'execution %: begins as new and untold, not %/%',\n            NEW.id, NEW.desired, NEW.observed USING ERRCODE = 'check_violation';\n    END IF;\n    NEW.rev := 1;\n    INSERT INTO orchestrator_executionhistory (execution_id, rev, lane, before, after, writer, actor, reason, at)\n    VALUES (NEW.id, 1, 'desired', '', NEW.desired, NEW.by_writer, coalesce(NEW.by_actor, ''),\n            coalesce(NEW.by_reason, ''), clock_timestamp()),\n           (NEW.id, 1, 'observed', '', NEW.observed, NEW.by_writer, coalesce(NEW.by_actor, ''),\n            coalesce(NEW.by_reason, ''), clock_timestamp());\n    INSERT INTO orchestrator_liveexecution (execution_id, job_id, slot, node_id, is_wanted)\n    VALUES (NEW.id, NEW.job_id, NEW.slot, NEW.node_id, nullif(NEW.desired = 'running', false));\n    INSERT INTO orchestrator_untoldorder (node_id, rev, execution_id) VALUES (NEW.node_id, NEW.order_rev, NEW.id);\n    NEW.by_writer := NULL;\n    NEW.by_actor := NULL;\n    NEW.by_reason := NULL;\n    RETURN NEW;\n", hash='d3133f24afcb9933683e6dbd45314dc3f8546d38', operation='INSERT', pgid='pgtrigger_execution_begins_f65a8', table='orchestrator_execution', when='BEFORE')),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='execution',
            trigger=pgtrigger.compiler.Trigger(name='execution_moves', sql=pgtrigger.compiler.UpsertTriggerSql(declare='DECLARE now_record bytea;', func="\n    \n        IF (NEW.id, NEW.job_id, NEW.node_id, NEW.evaluation_id, NEW.version, NEW.generation, NEW.round, NEW.slot, NEW.attempt, NEW.cpu, NEW.memory, NEW.disk, NEW.gpu, NEW.created_at, NEW.rev, NEW.started_at, NEW.ended_at) IS DISTINCT FROM (OLD.id, OLD.job_id, OLD.node_id, OLD.evaluation_id, OLD.version, OLD.generation, OLD.round, OLD.slot, OLD.attempt, OLD.cpu, OLD.memory, OLD.disk, OLD.gpu, OLD.created_at, OLD.rev, OLD.started_at, OLD.ended_at)\n            OR NEW.order_rev < OLD.order_rev\n            OR NEW.told_rev < OLD.told_rev\n            OR NEW.settled < OLD.settled\n            OR NEW.reserved > OLD.reserved THEN\n            \n            RAISE EXCEPTION '% %: %', TG_TABLE_NAME, OLD.id, CASE \n                WHEN NEW.id IS DISTINCT FROM OLD.id\n                    THEN format('id never changes, from %s to %s', OLD.id, NEW.id)\n                WHEN NEW.job_id IS DISTINCT FROM OLD.job_id\n                    THEN format('job_id never changes, from %s to %s', OLD.job_id, NEW.job_id)\n                WHEN NEW.node_id IS DISTINCT FROM OLD.node_id\n                    THEN format('node_id never changes, from %s to %s', OLD.node_id, NEW.node_id)\n                WHEN NEW.evaluation_id IS DISTINCT FROM OLD.evaluation_id\n                    THEN format('evaluation_id never changes, from %s to %s', OLD.evaluation_id, NEW.evaluation_id)\n                WHEN NEW.version IS DISTINCT FROM OLD.version\n                    THEN format('version never changes, from %s to %s', OLD.version, NEW.version)\n                WHEN NEW.generation IS DISTINCT FROM OLD.generation\n                    THEN format('generation never changes, from %s to %s', OLD.generation, NEW.generation)\n                WHEN NEW.round IS DISTINCT FROM OLD.round\n                    THEN format('round never changes, from %s to %s', OLD.round, NEW.round)\n                WHEN NEW.slot IS DISTINCT FROM OLD.slot\n                    THEN format('slot never changes, from %s to %s', OLD.slot, NEW.slot)\n                WHEN NEW.attempt IS DISTINCT FROM OLD.attempt\n                    THEN format('attempt never changes, from %s to %s', OLD.attempt, NEW.attempt)\n                WHEN NEW.cpu IS DISTINCT FROM OLD.cpu\n                    THEN format('cpu never changes, from %s to %s', OLD.cpu, NEW.cpu)\n                WHEN NEW.memory IS DISTINCT FROM OLD.memory\n                    THEN format('memory never changes, from %s to %s', OLD.memory, NEW.memory)\n                WHEN NEW.disk IS DISTINCT FROM OLD.disk\n                    THEN format('disk never changes, from %s to %s', OLD.disk, NEW.disk)\n                WHEN NEW.gpu IS DISTINCT FROM OLD.gpu\n                    THEN format('gpu never changes, from %s to %s', OLD.gpu, NEW.gpu)\n                WHEN NEW.created_at IS DISTINCT FROM OLD.created_at\n                    THEN format('created_at never changes, from %s to %s', OLD.created_at, NEW.created_at)\n                WHEN NEW.rev IS DISTINCT FROM OLD.rev\n                    THEN format('rev is written by the trigger alone, from %s to %s', OLD.rev, NEW.rev)\n                WHEN NEW.started_at IS DISTINCT FROM OLD.started_at\n                    THEN format('started_at is written by the trigger alone, from %s to %s', OLD.started_at, NEW.started_at)\n                WHEN NEW.ended_at IS DISTINCT FROM OLD.ended_at\n                    THEN format('ended_at is written by the trigger alone, from %s to %s', OLD.ended_at, NEW.ended_at)\n                WHEN NEW.order_rev < OLD.order_rev\n                    THEN format('order_rev cannot go back, from %s to %s', OLD.order_rev, NEW.order_rev)\n                WHEN NEW.told_rev < OLD.told_rev\n                    THEN format('told_rev cannot go back, from %s to %s', OLD.told_rev, NEW.told_rev)\n                WHEN NEW.settled < OLD.settled\n                    THEN format('settled cannot go back, from %s to %s', OLD.settled, NEW.settled)\n                WHEN NEW.reserved > OLD.reserved\n                    THEN format('reserved cannot go back, from %s to %s', OLD.reserved, NEW.reserved)\n                END USING ERRCODE = 'check_violation';\n    \n        END IF;\n    \n    IF NEW.observed IS DISTINCT FROM OLD.observed OR NEW.desired IS DISTINCT FROM OLD.desired THEN\n        IF NEW.by_writer IS NULL THEN\n            RAISE EXCEPTION 'execution %: a change of state must say who makes it (by_writer)',\n                OLD.id USING ERRCODE = 'check_violation';\n        END IF;\n        NEW.rev := OLD.rev + 1;\n        IF NEW.observed IS DISTINCT FROM OLD.observed THEN\n            IF NOT (OLD.observed || '>' || NEW.observed || '>' || NEW.by_writer)\n                   = ANY (ARRAY['ask_for_bid>ask_for_bid_accepted>endpoint', 'ask_for_bid>ask_for_bid_rejected>endpoint', 'ask_for_bid>cancelled>compute-forwarder', 'ask_for_bid>cancelled>endpoint', 'ask_for_bid>lost>endpoint', 'ask_for_bid_accepted>ask_for_bid_rejected>endpoint', 'ask_for_bid_accepted>bid_accepted>compute-forwarder', 'ask_for_bid_accepted>bid_rejected>compute-forwarder', 'ask_for_bid_accepted>cancelled>compute-forwarder', 'ask_for_bid_accepted>cancelled>endpoint', 'ask_for_bid_accepted>lost>endpoint', 'bid_accepted>ask_for_bid_rejected>endpoint', 'bid_accepted>cancelled>compute-forwarder', 'bid_accepted>cancelled>endpoint', 'bid_accepted>failed>endpoint', 'bid_accepted>lost>endpoint', 'bid_accepted>preparing>endpoint', 'bid_accepted>running>endpoint', 'new>ask_for_bid>compute-forwarder', 'new>bid_accepted>compute-forwarder', 'new>cancelled>compute-forwarder', 'new>cancelled>endpoint', 'new>lost>endpoint', 'preparing>cancelled>compute-forwarder', 'preparing>cancelled>endpoint', 'preparing>failed>endpoint', 'preparing>lost>endpoint', 'preparing>running>endpoint', 'publishing>cancelled>compute-forwarder', 'publishing>cancelled>endpoint', 'publishing>completed>endpoint', 'publishing>failed>endpoint', 'publishing>lost>endpoint', 'running>cancelled>compute-forwarder', 'running>cancelled>endpoint', 'running>completed>endpoint', 'running>failed>endpoint', 'running>lost>endpoint', 'running>publishing>endpoint']::text[]) THEN\n                RAISE EXCEPTION 'execution %: observed cannot go from % to % by the %',\n                    OLD.id, OLD.observed, NEW.observed, NEW.by_writer\n                    USING ERRCODE = 'check_violation';\n            END IF;\n            IF OLD.desired = 'stopped' AND NEW.observed = ANY (ARRAY['bid_accepted']::text[])\n               AND NOT EXISTS (SELECT FROM orchestrator_executionhistory WHERE execution_id = OLD.id\n                               AND lane = 'desired' AND after = 'running') THEN\n                RAISE EXCEPTION 'execution %: cannot be %, nobody has approved it',\n                    OLD.id, NEW.observed USING ERRCODE = 'check_violation';\n            END IF;\n            INSERT INTO orchestrator_executionhistory\n                (execution_id, rev, lane, before, after, writer, actor, cause, reason, at)\n            VALUES (NEW.id, NEW.rev, 'observed', OLD.observed, NEW.observed, NEW.by_writer,\n                    coalesce(NEW.by_actor, ''), CASE WHEN NEW.stop_cause <> OLD.stop_cause THEN NEW.stop_cause ELSE '' END, coalesce(NEW.by_reason, ''),\n                    clock_timestamp());\n            IF NEW.observed = 'running' THEN\n                NEW.started_at := coalesce(NEW.started_at, clock_timestamp());\n            END IF;\n        END IF;\n        IF NEW.observed = ANY (ARRAY['ask_for_bid_rejected', 'bid_rejected', 'cancelled', 'completed', 'failed', 'lost']::text[]) THEN\n            NEW.ended_at := coalesce(OLD.ended_at, clock_timestamp());\n            IF OLD.desired <> 'stopped' THEN\n                NEW.desired := 'stopped';\n                INSERT INTO orchestrator_executionhistory\n                    (execution_id, rev, lane, before, after, writer, actor, reason, at)\n                VALUES (NEW.id, NEW.rev, 'desired', OLD.desired, NEW.desired, NEW.by_writer,\n                        coalesce(NEW.by_actor, ''), 'it is ' || NEW.observed, clock_timestamp());\n            ELSIF NEW.desired <> 'stopped' THEN\n                RAISE EXCEPTION 'execution %: desired cannot go back from stopped', OLD.id\n                    USING ERRCODE = 'check_violation';\n            END IF;\n        ELSIF NEW.desired IS DISTINCT FROM OLD.desired THEN\n            IF NOT (OLD.desired || '>' || NEW.desired || '>' || NEW.by_writer)\n                   = ANY (ARRAY['pending>running>state-updater', 'pending>stopped>state-updater', 'running>stopped>state-updater']::text[]) THEN\n                RAISE EXCEPTION 'execution %: desired cannot go from % to % by the %',\n                    OLD.id, OLD.desired, NEW.desired, NEW.by_writer\n                    USING ERRCODE = 'check_violation';\n            END IF;\n            INSERT INTO orchestrator_executionhistory\n                (execution_id, rev, lane, before, after, writer, actor, cause, reason, at)\n            VALUES (NEW.id, NEW.rev, 'desired', OLD.desired, NEW.desired, NEW.by_writer,\n                    coalesce(NEW.by_actor, ''), CASE WHEN NEW.stop_cause <> OLD.stop_cause THEN NEW.stop_cause ELSE '' END, coalesce(NEW.by_reason, ''),\n                    clock_timestamp());\n        END IF;\n        now_record := \n    CASE WHEN NEW.desired = 'running' AND NEW.observed = 'running'\n              AND (SELECT count FROM orchestrator_job WHERE id = NEW.job_id) >= 100\n              AND NEW.generation = (SELECT generation FROM orchestrator_jobversion\n                                    WHERE job_id = NEW.job_id AND number = NEW.version)\n         THEN uuid_send(NEW.id) || uuid_send(NEW.node_id) || int4send(NEW.slot)\n              || int4send(NEW.attempt) || int4send(NEW.version) || int4send(NEW.round)\n              || timestamptz_send(NEW.created_at) || timestamptz_send(NEW.started_at) END\n;\n        IF nullif(NEW.desired = 'running', false) IS DISTINCT FROM nullif(OLD.desired = 'running', false) THEN\n            UPDATE orchestrator_liveexecution SET is_wanted = nullif(NEW.desired = 'running', false), record = now_record\n            WHERE execution_id = NEW.id;\n        ELSIF now_record IS NOT NULL OR OLD.observed = 'running' THEN\n            UPDATE orchestrator_liveexecution SET record = now_record\n            WHERE execution_id = NEW.id AND record IS DISTINCT FROM now_record;\n        END IF;\n    ELSE\n        NEW.rev := OLD.rev;\n    END IF;\n    IF (NEW.order_rev, NEW.told_rev) IS DISTINCT FROM (OLD.order_rev, OLD.told_rev) THEN\n        IF OLD.order_rev > OLD.told_rev THEN\n            DELETE FROM orchestrator_untoldorder\n            WHERE (node_id, rev, execution_id) = (OLD.node_id, OLD.order_rev, OLD.id);\n        END IF;\n        IF NEW.order_rev > NEW.told_rev THEN\n            INSERT INTO orchestrator_untoldorder (node_id, rev, execution_id)\n            VALUES (NEW.node_id, NEW.order_rev, NEW.id);\n        END IF;\n    END IF;\n    IF NEW.settled AND NOT NEW.reserved THEN\n        DELETE FROM orchestrator_liveexecution WHERE execution_id = NEW.id;\n    END IF;\n    NEW.by_writer := NULL;\n    NEW.by_actor := NULL;\n    NEW.by_reason := NULL;\n    RETURN NEW;\n", hash='08beffd18bc0bfd7c90f99b03d016f03f11694af', operation='UPDATE', pgid='pgtrigger_execution_moves_20113', table='orchestrator_execution', when='BEFORE')),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='execution',
            trigger=pgtrigger.compiler.Trigger(name='execution_leaves', sql=pgtrigger.compiler.UpsertTriggerSql(func='\n                DELETE FROM orchestrator_liveexecution WHERE execution_id = OLD.id;\n                DELETE FROM orchestrator_untoldorder\n                WHERE (node_id, rev, execution_id) = (OLD.node_id, OLD.order_rev, OLD.id);\n                RETURN OLD;\n            ', hash='fcc085c6650c66ac2ac3ecb367ebf1a14d02593a', operation='DELETE', pgid='pgtrigger_execution_leaves_bcb56', table='orchestrator_execution', when='BEFORE')),
        ),
        migrations.AddIndex(
            model_name='liveexecution',
            index=models.Index(fields=['node'], name='live_execution_of_node'),
        ),
        migrations.AddConstraint(
            model_name='liveexecution',
            constraint=models.UniqueConstraint(fields=('job', 'slot', 'is_wanted'), name='one_wanted_execution_per_slot'),
        ),
        migrations.AddConstraint(
            model_name='liveexecution',
            constraint=models.CheckConstraint(condition=models.Q(('is_wanted', True), ('is_wanted', None), _connector='OR'), name='wanted_or_null'),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='liveexecution',
            trigger=pgtrigger.compiler.Trigger(name='live_execution_follows', sql=pgtrigger.compiler.UpsertTriggerSql(condition='WHEN (pg_trigger_depth() = 0)', func="\n            RAISE EXCEPTION '%: it follows the executions, whose triggers alone write here', TG_TABLE_NAME USING ERRCODE = 'check_violation';\n        ", hash='c91772e7572149daeed6f1ce9be99b628215c842', operation='INSERT OR UPDATE OR DELETE', pgid='pgtrigger_live_execution_follows_4052e', table='orchestrator_liveexecution', when='BEFORE')),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='untoldorder',
            trigger=pgtrigger.compiler.Trigger(name='untold_order_follows', sql=pgtrigger.compiler.UpsertTriggerSql(condition='WHEN (pg_trigger_depth() = 0)', func="\n            RAISE EXCEPTION '%: it follows the executions, whose triggers alone write here', TG_TABLE_NAME USING ERRCODE = 'check_violation';\n        ", hash='6d6b4c2222ac5cd074400b2f6206629ad870e9e2', operation='INSERT OR UPDATE OR DELETE', pgid='pgtrigger_untold_order_follows_2d219', table='orchestrator_untoldorder', when='BEFORE')),
        ),
    ]
