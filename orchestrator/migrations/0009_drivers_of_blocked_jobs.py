"""Blocked jobs wait for a driver by what nodes say of themselves, as ``nodes.0007_labels`` has it."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("orchestrator", "0008_roles_of_before"),
        ("nodes", "0007_labels"),
    ]

    operations = [
        migrations.RunSQL(
            """
            UPDATE orchestrator_brokerrow SET blocked_on = jsonb_set(blocked_on, '{where}',
                replace(blocked_on ->> 'where', '["driver.', '["node.driver.')::jsonb)
            WHERE blocked_on ->> 'where' LIKE '["driver.%'
            """,
            """
            UPDATE orchestrator_brokerrow SET blocked_on = jsonb_set(blocked_on, '{where}',
                replace(blocked_on ->> 'where', '["node.driver.', '["driver.')::jsonb)
            WHERE blocked_on ->> 'where' LIKE '["node.driver.%'
            """,
        )
    ]
