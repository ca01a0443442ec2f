"""A row for each slot of a job that is not as all begin."""

import django.db.models.deletion
from django.db import migrations, models

_SLOTS = """
    INSERT INTO orchestrator_slotstate (job_id, slot, attempts, failed_attempts, retry_at)
    SELECT j.id, slot::int, coalesce((progress->'attempts'->>slot)::int, 0),
           coalesce((progress->'attempts'->>slot)::int, 0),
           (progress->'retry_at'->>slot)::timestamptz
    FROM orchestrator_job j, LATERAL (
        SELECT jsonb_object_keys(coalesce(progress->'attempts', '{}')) AS slot
        UNION SELECT jsonb_object_keys(coalesce(progress->'retry_at', '{}'))) s
    WHERE progress ?| '{attempts,retry_at}'
"""

#: It is about the round in which the job is now, and about no later one.
_PROGRESS = """
    UPDATE orchestrator_job SET progress = progress - 'attempts' - 'retry_at'
        || jsonb_build_object('round', round, 'since', round_at,
                              'tried', (SELECT count(*) FROM orchestrator_slotstate
                                        WHERE job_id = orchestrator_job.id))
    WHERE progress <> '{}' AND NOT progress ? 'round'
"""


class Migration(migrations.Migration):

    dependencies = [
        ('orchestrator', '0012_intent'),
    ]

    operations = [
        migrations.CreateModel(
            name='SlotState',
            fields=[
                ('pk', models.CompositePrimaryKey('job', 'slot', blank=True, editable=False, primary_key=True, serialize=False)),
                ('slot', models.IntegerField()),
                ('attempts', models.IntegerField(default=0)),
                ('failed_attempts', models.IntegerField(default=0)),
                ('retry_at', models.DateTimeField(null=True)),
                ('job', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='slots', to='orchestrator.job')),
            ],
        ),
        migrations.RunSQL(_SLOTS, migrations.RunSQL.noop),
        migrations.RunSQL(_PROGRESS, migrations.RunSQL.noop),
    ]
