"""Reasons are stored as values; the sentences of earlier releases stay, as JSON strings."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("orchestrator", "0004_what_pages_ask_for"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="stopped_by",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE orchestrator_job ALTER COLUMN reason TYPE jsonb"
                    " USING to_jsonb(reason)",
                    "ALTER TABLE orchestrator_job ALTER COLUMN reason TYPE text"
                    " USING CASE jsonb_typeof(reason) WHEN 'string' THEN reason #>> '{}'"
                    " ELSE '' END",
                ),
            ],
            state_operations=[
                migrations.AlterField(
                    model_name="job",
                    name="reason",
                    field=models.JSONField(blank=True, default=list),
                ),
            ],
        ),
    ]
