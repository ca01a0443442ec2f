"""Why executions were stopped, and how often slots were interrupted."""

import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations, models

#: What is not accounted for yet, and was told to stop, or lost while it was only asked for a bid:
#: without a cause it would count as interrupted.  Who ended the wish to run it, history tells.
_CAUSES = """
    UPDATE orchestrator_execution e SET
        stop_cause = CASE h.writer WHEN 'state-updater' THEN 'earlier_release' ELSE 'bid_lost' END,
        stop_detail = CASE h.writer WHEN 'state-updater' THEN h.reason ELSE e.message END
    FROM orchestrator_executionhistory h
    WHERE NOT e.settled AND h.execution_id = e.id AND h.lane = 'desired' AND h.after = 'stopped'
      AND (h.writer = 'state-updater' OR (h.before = 'pending' AND e.observed = 'lost'))
"""


class Migration(migrations.Migration):

    dependencies = [
        ('nodes', '0009_rejected_for_good'),
        ('orchestrator', '0013_slots'),
    ]

    operations = [
        pgtrigger.migrations.RemoveTrigger(
            model_name='execution',
            name='execution_moves',
        ),
        migrations.AddField(
            model_name='execution',
            name='stop_cause',
            field=models.CharField(blank=True, db_default='', default='', max_length=32),
        ),
        migrations.AddField(
            model_name='execution',
            name='stop_detail',
            field=models.TextField(blank=True, db_default='', default=''),
        ),
        migrations.AddField(
            model_name='executionhistory',
            name='cause',
            field=models.CharField(db_default='', default='', max_length=32),
        ),
        migrations.AddField(
            model_name='slotstate',
            name='interruptions',
            field=models.IntegerField(db_default=0, default=0),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='execution',
            trigger=pgtrigger.compiler.Trigger(name='execution_moves', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n    \n        IF (NEW.id, NEW.job_id, NEW.node_id, NEW.evaluation_id, NEW.version, NEW.generation, NEW.round, NEW.slot, NEW.attempt, NEW.cpu, NEW.memory, NEW.disk, NEW.gpu, NEW.created_at, NEW.rev, NEW.started_at, NEW.ended_at) IS DISTINCT FROM (OLD.id, OLD.job_id, OLD.node_id, OLD.evaluation_id, OLD.version, OLD.generation, OLD.round, OLD.slot, OLD.attempt, OLD.cpu, OLD.memory, OLD.disk, OLD.gpu, OLD.created_at, OLD.rev, OLD.started_at, OLD.ended_at)\n            OR NEW.order_rev < OLD.order_rev\n            OR NEW.told_rev < OLD.told_rev\n            OR NEW.settled < OLD.settled\n            OR NEW.reserved > OLD.reserved THEN\n            \n            RAISE EXCEPTION '% %: %', TG_TABLE_NAME, OLD.id, CASE \n                WHEN NEW.id IS DISTINCT FROM OLD.id\n                    THEN format('id never changes, from %s to %s', OLD.id, NEW.id)\n                WHEN NEW.job_id IS DISTINCT FROM OLD.job_id\n                    THEN format('job_id never changes, from %s to %s', OLD.job_id, NEW.job_id)\n                WHEN NEW.node_id IS DISTINCT FROM OLD.node_id\n                    THEN format('node_id never changes, from %s to %s', OLD.node_id, NEW.node_id)\n                WHEN NEW.evaluation_id IS DISTINCT FROM OLD.evaluation_id\n                    THEN format('evaluation_id never changes, from %s to %s', OLD.evaluation_id, NEW.evaluation_id)\n                WHEN NEW.version IS DISTINCT FROM OLD.version\n                    THEN format('version never changes, from %s to %s', OLD.version, NEW.version)\n                WHEN NEW.generation IS DISTINCT FROM OLD.generation\n                    THEN format('generation never changes, from %s to %s', OLD.generation, NEW.generation)\n                WHEN NEW.round IS DISTINCT FROM OLD.round\n                    THEN format('round never changes, from %s to %s', OLD.round, NEW.round)\n                WHEN NEW.slot IS DISTINCT FROM OLD.slot\n                    THEN format('slot never changes, from %s to %s', OLD.slot, NEW.slot)\n                WHEN NEW.attempt IS DISTINCT FROM OLD.attempt\n                    THEN format('attempt never changes, from %s to %s', OLD.attempt, NEW.attempt)\n                WHEN NEW.cpu IS DISTINCT FROM OLD.cpu\n                    THEN format('cpu never changes, from %s to %s', OLD.cpu, NEW.cpu)\n                WHEN NEW.memory IS DISTINCT FROM OLD.memory\n                    THEN format('memory never changes, from %s to %s', OLD.memory, NEW.memory)\n                WHEN NEW.disk IS DISTINCT FROM OLD.disk\n                    THEN format('disk never changes, from %s to %s', OLD.disk, NEW.disk)\n                WHEN NEW.gpu IS DISTINCT FROM OLD.gpu\n                    THEN format('gpu never changes, from %s to %s', OLD.gpu, NEW.gpu)\n                WHEN NEW.created_at IS DISTINCT FROM OLD.created_at\n                    THEN format('created_at never changes, from %s to %s', OLD.created_at, NEW.created_at)\n                WHEN NEW.rev IS DISTINCT FROM OLD.rev\n                    THEN format('rev is written by the trigger alone, from %s to %s', OLD.rev, NEW.rev)\n                WHEN NEW.started_at IS DISTINCT FROM OLD.started_at\n                    THEN format('started_at is written by the trigger alone, from %s to %s', OLD.started_at, NEW.started_at)\n                WHEN NEW.ended_at IS DISTINCT FROM OLD.ended_at\n                    THEN format('ended_at is written by the trigger alone, from %s to %s', OLD.ended_at, NEW.ended_at)\n                WHEN NEW.order_rev < OLD.order_rev\n                    THEN format('order_rev cannot go back, from %s to %s', OLD.order_rev, NEW.order_rev)\n                WHEN NEW.told_rev < OLD.told_rev\n                    THEN format('told_rev cannot go back, from %s to %s', OLD.told_rev, NEW.told_rev)\n                WHEN NEW.settled < OLD.settled\n                    THEN format('settled cannot go back, from %s to %s', OLD.settled, NEW.settled)\n                WHEN NEW.reserved > OLD.reserved\n                    THEN format('reserved cannot go back, from %s to %s', OLD.reserved, NEW.reserved)\n                END USING ERRCODE = 'check_violation';\n    \n        END IF;\n    \n    IF NEW.observed IS DISTINCT FROM OLD.observed OR NEW.desired IS DISTINCT FROM OLD.desired THEN\n        IF NEW.by_writer IS NULL THEN\n            RAISE EXCEPTION 'execution %: a change of state must say who makes it (by_writer)',\n                OLD.id USING ERRCODE = 'check_violation';\n        END IF;\n        NEW.rev := OLD.rev + 1;\n        IF NEW.observed IS DISTINCT FROM OLD.observed THEN\n            IF NOT (OLD.observed || '>' || NEW.observed || '>' || NEW.by_writer)\n                   = ANY (ARRAY['ask_for_bid>ask_for_bid_accepted>endpoint', 'ask_for_bid>ask_for_bid_rejected>endpoint', 'ask_for_bid>cancelled>compute-forwarder', 'ask_for_bid>cancelled>endpoint', 'ask_for_bid>lost>endpoint', 'ask_for_bid_accepted>ask_for_bid_rejected>endpoint', 'ask_for_bid_accepted>bid_accepted>compute-forwarder', 'ask_for_bid_accepted>bid_rejected>compute-forwarder', 'ask_for_bid_accepted>cancelled>compute-forwarder', 'ask_for_bid_accepted>cancelled>endpoint', 'ask_for_bid_accepted>lost>endpoint', 'bid_accepted>ask_for_bid_rejected>endpoint', 'bid_accepted>cancelled>compute-forwarder', 'bid_accepted>cancelled>endpoint', 'bid_accepted>failed>endpoint', 'bid_accepted>lost>endpoint', 'bid_accepted>preparing>endpoint', 'bid_accepted>running>endpoint', 'new>ask_for_bid>compute-forwarder', 'new>bid_accepted>compute-forwarder', 'new>cancelled>compute-forwarder', 'new>cancelled>endpoint', 'new>lost>endpoint', 'preparing>cancelled>compute-forwarder', 'preparing>cancelled>endpoint', 'preparing>failed>endpoint', 'preparing>lost>endpoint', 'preparing>running>endpoint', 'publishing>cancelled>compute-forwarder', 'publishing>cancelled>endpoint', 'publishing>completed>endpoint', 'publishing>failed>endpoint', 'publishing>lost>endpoint', 'running>cancelled>compute-forwarder', 'running>cancelled>endpoint', 'running>completed>endpoint', 'running>failed>endpoint', 'running>lost>endpoint', 'running>publishing>endpoint']::text[]) THEN\n                RAISE EXCEPTION 'execution %: observed cannot go from % to % by the %',\n                    OLD.id, OLD.observed, NEW.observed, NEW.by_writer\n                    USING ERRCODE = 'check_violation';\n            END IF;\n            IF OLD.desired = 'stopped' AND NEW.observed = ANY (ARRAY['bid_accepted']::text[])\n               AND NOT EXISTS (SELECT FROM orchestrator_executionhistory WHERE execution_id = OLD.id\n                               AND lane = 'desired' AND after = 'running') THEN\n                RAISE EXCEPTION 'execution %: cannot be %, nobody has approved it',\n                    OLD.id, NEW.observed USING ERRCODE = 'check_violation';\n            END IF;\n            INSERT INTO orchestrator_executionhistory\n                (execution_id, rev, lane, before, after, writer, actor, cause, reason, at)\n            VALUES (NEW.id, NEW.rev, 'observed', OLD.observed, NEW.observed, NEW.by_writer,\n                    coalesce(NEW.by_actor, ''), CASE WHEN NEW.stop_cause <> OLD.stop_cause THEN NEW.stop_cause ELSE '' END, coalesce(NEW.by_reason, ''),\n                    clock_timestamp());\n            IF NEW.observed = 'running' THEN\n                NEW.started_at := coalesce(NEW.started_at, clock_timestamp());\n            END IF;\n        END IF;\n        IF NEW.observed = ANY (ARRAY['ask_for_bid_rejected', 'bid_rejected', 'cancelled', 'completed', 'failed', 'lost']::text[]) THEN\n            NEW.ended_at := coalesce(OLD.ended_at, clock_timestamp());\n            IF OLD.desired <> 'stopped' THEN\n                NEW.desired := 'stopped';\n                INSERT INTO orchestrator_executionhistory\n                    (execution_id, rev, lane, before, after, writer, actor, reason, at)\n                VALUES (NEW.id, NEW.rev, 'desired', OLD.desired, NEW.desired, NEW.by_writer,\n                        coalesce(NEW.by_actor, ''), 'it is ' || NEW.observed, clock_timestamp());\n            ELSIF NEW.desired <> 'stopped' THEN\n                RAISE EXCEPTION 'execution %: desired cannot go back from stopped', OLD.id\n                    USING ERRCODE = 'check_violation';\n            END IF;\n        ELSIF NEW.desired IS DISTINCT FROM OLD.desired THEN\n            IF NOT (OLD.desired || '>' || NEW.desired || '>' || NEW.by_writer)\n                   = ANY (ARRAY['pending>running>state-updater', 'pending>stopped>state-updater', 'running>stopped>state-updater']::text[]) THEN\n                RAISE EXCEPTION 'execution %: desired cannot go from % to % by the %',\n                    OLD.id, OLD.desired, NEW.desired, NEW.by_writer\n                    USING ERRCODE = 'check_violation';\n            END IF;\n            INSERT INTO orchestrator_executionhistory\n                (execution_id, rev, lane, before, after, writer, actor, cause, reason, at)\n            VALUES (NEW.id, NEW.rev, 'desired', OLD.desired, NEW.desired, NEW.by_writer,\n                    coalesce(NEW.by_actor, ''), CASE WHEN NEW.stop_cause <> OLD.stop_cause THEN NEW.stop_cause ELSE '' END, coalesce(NEW.by_reason, ''),\n                    clock_timestamp());\n        END IF;\n    ELSE\n        NEW.rev := OLD.rev;\n    END IF;\n    NEW.by_writer := NULL;\n    NEW.by_actor := NULL;\n    NEW.by_reason := NULL;\n    RETURN NEW;\n", hash='abfc9769dea2d1f982f56e6638063107368c5881', operation='UPDATE', pgid='pgtrigger_execution_moves_20113', table='orchestrator_execution', when='BEFORE')),
        ),
        migrations.AddConstraint(
            model_name='execution',
            constraint=models.CheckConstraint(condition=models.Q(('stop_cause', ''), ('desired', 'stopped'), _connector='OR'), name='what_is_wanted_has_no_stop_cause'),
        ),
        migrations.RunSQL(_CAUSES, migrations.RunSQL.noop),
    ]
