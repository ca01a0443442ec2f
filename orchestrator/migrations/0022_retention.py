"""What is over may go: the history of an execution after it, and how much of a job is gone."""

import django.db.models.deletion
import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations, models

#: It belongs to the owner of the schema, as the application's role deletes nothing of the history.
_FORGET = """
    CREATE FUNCTION orchestrator_forget_history(executions uuid[]) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
    AS $$
        WITH gone AS (
            DELETE FROM orchestrator_executionhistory
            WHERE execution_id = ANY(executions) AND at < now() - interval '168 hours'
            RETURNING 1)
        SELECT count(*) FROM gone
    $$;
    REVOKE ALL ON FUNCTION orchestrator_forget_history FROM PUBLIC;
    COMMENT ON FUNCTION orchestrator_forget_history IS
        'Deletes the history of executions that are gone, which is not of this week.';
"""


class Migration(migrations.Migration):

    dependencies = [
        ('orchestrator', '0021_partitions'),
    ]

    operations = [
        migrations.CreateModel(
            name='RemovedHistory',
            fields=[
                ('job', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='removed_history', serialize=False, to='orchestrator.job')),
                ('executions', models.BigIntegerField(db_default=0, default=0)),
                ('evaluations', models.BigIntegerField(db_default=0, default=0)),
                ('ended_before', models.DateTimeField()),
            ],
        ),
        pgtrigger.migrations.RemoveTrigger(
            model_name='executionhistory',
            name='history_stays',
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='executionhistory',
            trigger=pgtrigger.compiler.Trigger(name='history_stays', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n                IF TG_OP = 'DELETE' AND NOT EXISTS (\n                    SELECT FROM orchestrator_execution WHERE id = OLD.execution_id) THEN\n                    RETURN OLD; END IF;\n                RAISE EXCEPTION '%: what is written here is neither changed nor deleted, as long'\n                    ' as there is its execution', TG_TABLE_NAME USING ERRCODE = 'check_violation';\n            ", hash='9261a709bfea090fe680cdeaa0e3c7e4ee2b1481', operation='UPDATE OR DELETE', pgid='pgtrigger_history_stays_5ad10', table='orchestrator_executionhistory', when='BEFORE')),
        ),
        migrations.RunSQL(_FORGET, "DROP FUNCTION orchestrator_forget_history"),
    ]
