"""Secrets, and by which index the jobs that name one are found."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("orchestrator", "0009_drivers_of_blocked_jobs"),
    ]

    operations = [
        migrations.CreateModel(
            name="Secret",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=63)),
                ("sealed", models.TextField()),
                ("version", models.PositiveIntegerField(default=1)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("created_by", models.TextField(default="")),
                (
                    "updated_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("updated_by", models.TextField(default="")),
                (
                    "namespace",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="orchestrator.namespace"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("namespace", "name"), name="one_secret_of_a_name"
                    )
                ],
            },
        ),
        migrations.RunSQL(
            # Few jobs name secrets: the index has those alone.  See endpoint/secrets.py.
            """
            CREATE INDEX version_names_secrets ON orchestrator_jobversion (job_id, number)
            WHERE (spec -> 'task' -> 'env')::text LIKE '%: "secret://%'
            """,
            "DROP INDEX version_names_secrets",
        ),
    ]
