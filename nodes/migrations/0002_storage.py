"""Heartbeats and sessions are updated all the time: keep their updates in the page (HOT)."""

from django.db import migrations

HOT = (
    "fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200,"
    " autovacuum_vacuum_cost_delay = 0"
)
TABLES = ("nodes_nodeheartbeat", "nodes_nodesession", "nodes_listening")


class Migration(migrations.Migration):
    dependencies = [("nodes", "0001_initial")]
    operations = [
        migrations.RunSQL(
            f"ALTER TABLE {table} SET ({HOT})",
            f"ALTER TABLE {table} RESET (fillfactor, autovacuum_vacuum_scale_factor,"
            " autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay)",
        )
        for table in TABLES
    ]
