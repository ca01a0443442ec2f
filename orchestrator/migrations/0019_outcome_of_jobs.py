"""Jobs are looked up by their outcome, so that no index looks at what most moves change."""

import django.db.models.deletion
import pgtrigger.compiler
import pgtrigger.migrations
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('nodes', '0009_rejected_for_good'),
        ('orchestrator', '0018_the_queue'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        pgtrigger.migrations.RemoveTrigger(
            model_name='job',
            name='job_moves',
        ),
        migrations.RemoveConstraint(
            model_name='job',
            name='job_ended_iff_terminal',
        ),
        migrations.RemoveIndex(
            model_name='job',
            name='job_by_state',
        ),
        migrations.RemoveIndex(
            model_name='job',
            name='job_failed',
        ),
        migrations.AddField(
            model_name='job',
            name='outcome',
            field=models.CharField(blank=True, editable=False, max_length=16, null=True),
        ),
        migrations.RunSQL(
            "UPDATE orchestrator_job SET outcome = state WHERE ended_at IS NOT NULL",
            migrations.RunSQL.noop,
        ),
        migrations.AlterField(
            model_name='execution',
            name='job',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='executions', to='orchestrator.job'),
        ),
        migrations.AlterField(
            model_name='execution',
            name='node',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='executions', to='nodes.node'),
        ),
        migrations.AlterField(
            model_name='job',
            name='created_by',
            field=models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='jobversion',
            name='created_by',
            field=models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.SET_NULL, to=settings.AUTH_USER_MODEL),
        ),
        migrations.AlterField(
            model_name='jobversion',
            name='job',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='versions', to='orchestrator.job'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('outcome__isnull', False)), fields=['outcome', '-created_at', 'id'], name='job_by_outcome'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('outcome__isnull', True)), fields=['-created_at', 'id'], name='job_live'),
        ),
        migrations.AddIndex(
            model_name='job',
            index=models.Index(condition=models.Q(('outcome', 'failed')), fields=['-ended_at'], name='job_failed'),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='job',
            trigger=pgtrigger.compiler.Trigger(name='job_moves', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n        IF (NEW.id, NEW.namespace_id, NEW.name, NEW.created_at, NEW.rev, NEW.updated_at, NEW.ended_at, NEW.outcome, NEW.intent_rev) IS DISTINCT FROM (OLD.id, OLD.namespace_id, OLD.name, OLD.created_at, OLD.rev, OLD.updated_at, OLD.ended_at, OLD.outcome, OLD.intent_rev)\n            OR NEW.version < OLD.version\n            OR NEW.round < OLD.round\n            OR NEW.seen_intent < OLD.seen_intent THEN\n            \n            RAISE EXCEPTION '% %: %', TG_TABLE_NAME, OLD.id, CASE \n                WHEN NEW.id IS DISTINCT FROM OLD.id\n                    THEN format('id never changes, from %s to %s', OLD.id, NEW.id)\n                WHEN NEW.namespace_id IS DISTINCT FROM OLD.namespace_id\n                    THEN format('namespace_id never changes, from %s to %s', OLD.namespace_id, NEW.namespace_id)\n                WHEN NEW.name IS DISTINCT FROM OLD.name\n                    THEN format('name never changes, from %s to %s', OLD.name, NEW.name)\n                WHEN NEW.created_at IS DISTINCT FROM OLD.created_at\n                    THEN format('created_at never changes, from %s to %s', OLD.created_at, NEW.created_at)\n                WHEN NEW.rev IS DISTINCT FROM OLD.rev\n                    THEN format('rev is written by the trigger alone, from %s to %s', OLD.rev, NEW.rev)\n                WHEN NEW.updated_at IS DISTINCT FROM OLD.updated_at\n                    THEN format('updated_at is written by the trigger alone, from %s to %s', OLD.updated_at, NEW.updated_at)\n                WHEN NEW.ended_at IS DISTINCT FROM OLD.ended_at\n                    THEN format('ended_at is written by the trigger alone, from %s to %s', OLD.ended_at, NEW.ended_at)\n                WHEN NEW.outcome IS DISTINCT FROM OLD.outcome\n                    THEN format('outcome is written by the trigger alone, from %s to %s', OLD.outcome, NEW.outcome)\n                WHEN NEW.intent_rev IS DISTINCT FROM OLD.intent_rev\n                    THEN format('intent_rev is written by the trigger alone, from %s to %s', OLD.intent_rev, NEW.intent_rev)\n                WHEN NEW.version < OLD.version\n                    THEN format('version cannot go back, from %s to %s', OLD.version, NEW.version)\n                WHEN NEW.round < OLD.round\n                    THEN format('round cannot go back, from %s to %s', OLD.round, NEW.round)\n                WHEN NEW.seen_intent < OLD.seen_intent\n                    THEN format('seen_intent cannot go back, from %s to %s', OLD.seen_intent, NEW.seen_intent)\n                END USING ERRCODE = 'check_violation';\n    \n        END IF;\n    \n                NEW.intent_rev := OLD.intent_rev;\n                IF (NEW.type, NEW.version, NEW.round, NEW.round_at, NEW.count, NEW.priority, NEW.labels, NEW.stop_requested, NEW.stop_reason, NEW.stopped_by) IS DISTINCT FROM (OLD.type, OLD.version, OLD.round, OLD.round_at, OLD.count, OLD.priority, OLD.labels, OLD.stop_requested, OLD.stop_reason, OLD.stopped_by) THEN\n                    NEW.intent_rev := OLD.intent_rev + 1;\n                    IF NEW.round <> OLD.round THEN\n                        NEW.tally := '{}';\n                    END IF;\n                    IF NEW.round_at <> OLD.round_at AND OLD.state = ANY (ARRAY['completed', 'failed', 'stopped']::text[]) THEN\n                        NEW.state := 'pending';\n                        NEW.reason := '[]';\n                    END IF;\n                END IF;\n            \n        IF NEW.state IS DISTINCT FROM OLD.state\n           AND NOT (OLD.state || '>' || NEW.state) = ANY (ARRAY['completed>pending', 'failed>pending', 'pending>completed', 'pending>failed', 'pending>queued', 'pending>running', 'pending>stopped', 'queued>completed', 'queued>failed', 'queued>running', 'queued>stopped', 'running>completed', 'running>failed', 'running>queued', 'running>stopped', 'stopped>pending']::text[]) THEN\n            RAISE EXCEPTION '% %: state cannot go from % to %',\n                TG_TABLE_NAME, OLD.id, OLD.state, NEW.state\n                USING ERRCODE = 'check_violation';\n        END IF;\n    \n                NEW.rev := OLD.rev + 1;\n                NEW.updated_at := clock_timestamp();\n                IF NEW.state = ANY (ARRAY['completed', 'failed', 'stopped']::text[]) THEN\n                    NEW.ended_at := coalesce(OLD.ended_at, NEW.updated_at);\n                    NEW.outcome := NEW.state;\n                ELSE\n                    NEW.ended_at := NULL;\n                    NEW.outcome := NULL;\n                END IF;\n                RETURN NEW;\n            ", hash='e86990213a8dfcb1c59e7a3e22f05faea1f6139b', operation='UPDATE', pgid='pgtrigger_job_moves_e98d8', table='orchestrator_job', when='BEFORE')),
        ),
        migrations.AddConstraint(
            model_name='job',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ended_at__isnull', False), ('outcome', models.F('state')), ('state__in', ['completed', 'failed', 'stopped'])), models.Q(models.Q(('state__in', ['completed', 'failed', 'stopped']), _negated=True), ('ended_at__isnull', True), ('outcome__isnull', True)), _connector='OR'), name='job_ended_iff_terminal'),
        ),
    ]
