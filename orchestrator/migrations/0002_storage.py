"""The queue is tiny and hot: room for updates in the page, and an eager vacuum.

The row of cluster settings exists from the start.
"""

from django.db import migrations

HOT = (
    "fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,"
    " autovacuum_vacuum_cost_delay = 0"
)
RESET = (
    "fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,"
    " autovacuum_vacuum_cost_delay"
)
TABLES = ("orchestrator_brokerrow", "orchestrator_brokertrigger", "orchestrator_workerprocess")


class Migration(migrations.Migration):
    dependencies = [("orchestrator", "0001_initial")]
    operations = [
        *(
            migrations.RunSQL(
                f"ALTER TABLE {table} SET ({HOT})", f"ALTER TABLE {table} RESET ({RESET})"
            )
            for table in TABLES
        ),
        migrations.RunSQL(
            "INSERT INTO orchestrator_clustersetting"
            " (id, scheduling_paused, paused_reason, paused_by, algorithm, epoch)"
            " VALUES (1, false, '', '', 'binpack', gen_random_uuid())",
            "DELETE FROM orchestrator_clustersetting",
        ),
    ]
