"""The queue is what was asked: nothing is folded, and what nobody asks about has no row.

Each job of the queue is evaluated once after this, whatever it waited for.
"""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

_ASKED = """
    CREATE TABLE orchestrator_asked AS
        SELECT job_id, trigger, least(not_before, clock_timestamp()) AS since
        FROM orchestrator_brokertrigger
        WHERE job_id IS NOT NULL
        UNION ALL
        SELECT job_id, 'retry', ready_since FROM orchestrator_brokerrow
        WHERE want > done OR not_before IS NOT NULL OR blocked_on IS NOT NULL
           OR dead_letter IS NOT NULL;
    UPDATE orchestrator_evaluation SET state = 'cancelled', finished_at = clock_timestamp(),
        outcome = 'begun again: Muster was upgraded'
    WHERE state = 'leased';
    UPDATE orchestrator_evaluation SET state = 'complete'
    WHERE state NOT IN ('complete', 'failed', 'cancelled');
    UPDATE orchestrator_evaluation SET finished_at = leased_at WHERE finished_at IS NULL;
    SET CONSTRAINTS ALL IMMEDIATE;
"""

_ASKED_AS_BEFORE = """
    INSERT INTO orchestrator_brokertrigger (job_id, trigger)
        SELECT DISTINCT job_id, trigger FROM orchestrator_asked;
    DROP TABLE orchestrator_asked;
"""

_ASK = """
    INSERT INTO orchestrator_brokertrigger (job_id, urgency, namespace, type, trigger, since)
        SELECT j.id, -j.priority, j.namespace_id, j.type, trigger, since
        FROM orchestrator_asked a JOIN orchestrator_job j ON j.id = a.job_id;
    DROP TABLE orchestrator_asked;
"""

_ASK_AS_BEFORE = """
    CREATE TABLE orchestrator_asked AS
        SELECT job_id, trigger, since FROM orchestrator_brokertrigger
        UNION ALL SELECT job_id, 'retry', since FROM orchestrator_brokerrow
        UNION ALL SELECT job_id, trigger, at FROM orchestrator_brokerdue
        UNION ALL SELECT job_id, 'retry', since FROM orchestrator_blockedjob;
"""

#: Rows live for moments: what they leave is taken away at once.
_ROOM = "".join(
    f"""
    ALTER TABLE orchestrator_{table} SET (
        autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,
        autovacuum_vacuum_cost_delay = 0);
    """
    for table in ("brokertrigger", "brokerrow", "brokerdue", "blockedjob", "freednode")
)


def _of_job(name):
    return models.OneToOneField(
        db_constraint=False,
        on_delete=django.db.models.deletion.CASCADE,
        primary_key=True,
        related_name=name,
        serialize=False,
        to="orchestrator.job",
    )


class Migration(migrations.Migration):

    dependencies = [("orchestrator", "0017_live_executions")]

    operations = [
        migrations.RunSQL(_ASKED, _ASKED_AS_BEFORE),
        migrations.DeleteModel("BrokerTrigger"),
        migrations.DeleteModel("BrokerRow"),
        migrations.RunSQL(
            "CREATE SEQUENCE orchestrator_trigger", "DROP SEQUENCE orchestrator_trigger"
        ),
        migrations.CreateModel(
            name="BrokerTrigger",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "job", "id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "id",
                    models.BigIntegerField(
                        db_default=models.Func(
                            models.Value("orchestrator_trigger"),
                            function="nextval",
                            output_field=models.BigIntegerField(),
                        )
                    ),
                ),
                ("urgency", models.SmallIntegerField()),
                ("namespace", models.CharField(max_length=63)),
                ("type", models.CharField(max_length=16)),
                ("trigger", models.CharField(max_length=32)),
                (
                    "since",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                (
                    "job",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="orchestrator.job",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(fields=["urgency", "namespace", "since"], name="broker_ready")
                ]
            },
        ),
        migrations.CreateModel(
            name="BrokerRow",
            fields=[
                ("job", _of_job("broker_row")),
                ("type", models.CharField(max_length=16)),
                ("priority", models.SmallIntegerField(default=50)),
                ("evaluation_id", models.BigIntegerField()),
                ("worker", models.CharField(blank=True, default="", max_length=128)),
                (
                    "leased_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("leased_until", models.DateTimeField(blank=True, null=True)),
                (
                    "since",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("triggers", models.JSONField(default=dict)),
                ("deliveries", models.IntegerField(default=1)),
                ("retry_at", models.DateTimeField(blank=True, null=True)),
                ("dead_letter", models.TextField(blank=True, null=True)),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("dead_letter__isnull", False)),
                        fields=["job"],
                        name="broker_dead",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("leased_until__isnull", True), ("worker", "")),
                            models.Q(
                                ("dead_letter", None),
                                ("leased_until__isnull", False),
                                ("retry_at", None),
                                models.Q(("worker", ""), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="broker_lease_is_whole",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="BrokerDue",
            fields=[
                ("job", _of_job("broker_due")),
                ("at", models.DateTimeField()),
                ("trigger", models.CharField(max_length=32)),
            ],
            options={"indexes": [models.Index(fields=["at"], name="broker_due_at")]},
        ),
        migrations.CreateModel(
            name="BlockedClass",
            fields=[
                (
                    "digest",
                    models.CharField(max_length=32, primary_key=True, serialize=False),
                ),
                ("need", models.JSONField()),
                ("where", models.JSONField()),
                ("why", models.JSONField()),
                ("impossible", models.BooleanField(default=False)),
                (
                    "seen_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
        ),
        migrations.CreateModel(
            name="BlockedJob",
            fields=[
                ("job", _of_job("blocked")),
                ("urgency", models.SmallIntegerField()),
                (
                    "since",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("waits_since", models.DateTimeField(null=True)),
                ("missing", models.IntegerField(default=1)),
                (
                    "blocked_class",
                    models.ForeignKey(
                        db_column="class",
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="jobs",
                        to="orchestrator.blockedclass",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["blocked_class", "urgency", "since", "job"],
                        name="blocked_of_class",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("missing__gte", 1)), name="blocked_misses_some"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="FreedNode",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("node_id", models.UUIDField()),
                (
                    "at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
            options={"indexes": [models.Index(fields=["at"], name="freed_node_at")]},
        ),
        migrations.RunSQL(_ROOM, migrations.RunSQL.noop),
        migrations.RemoveConstraint("Evaluation", "evaluation_state_is_known"),
        migrations.AlterField("Evaluation", "token", models.BigIntegerField(db_default=0)),
        migrations.RemoveField("Evaluation", "token"),
        migrations.AlterField(
            "Evaluation",
            "state",
            models.CharField(
                choices=[
                    ("complete", "complete"),
                    ("failed", "failed"),
                    ("cancelled", "cancelled"),
                ],
                default="complete",
                max_length=16,
            ),
        ),
        migrations.AlterField(
            "Evaluation",
            "finished_at",
            models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
        ),
        migrations.AlterField(
            "Evaluation",
            "job",
            models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="evaluations",
                to="orchestrator.job",
            ),
        ),
        migrations.AddConstraint(
            "Evaluation",
            models.CheckConstraint(
                condition=models.Q(("state__in", ["cancelled", "complete", "failed"])),
                name="evaluation_state_is_known",
            ),
        ),
        migrations.RunSQL(
            "ALTER TABLE orchestrator_evaluation RESET (fillfactor)",
            "ALTER TABLE orchestrator_evaluation SET (fillfactor = 80)",
        ),
        migrations.RunSQL(_ASK, _ASK_AS_BEFORE),
    ]
