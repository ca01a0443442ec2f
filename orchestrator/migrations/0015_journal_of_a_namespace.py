"""Where the journal of a namespace begins, and tokens that name a removed one."""

import orchestrator.models.access
from django.db import migrations, models

_BEGIN = """
    UPDATE orchestrator_namespace n SET journal_from = coalesce(
        (SELECT max(id) - 1 FROM orchestrator_event e
         WHERE e.namespace = n.name AND what = 'namespace-create'), 0)
"""

#: Names in the limits of tokens of namespaces that were removed after the token was made.
_REMOVED = """
    UPDATE orchestrator_apitoken t SET
        namespaces = coalesce(rest, namespaces),
        revoked_at = CASE WHEN rest IS NULL THEN now() END
    FROM (
        SELECT o.id, array_agg(it) FILTER (WHERE NOT is_removed) AS rest
        FROM orchestrator_apitoken o, unnest(namespaces) AS it, LATERAL (SELECT EXISTS (
            SELECT FROM orchestrator_event e
            WHERE e.namespace = it AND e.what = 'namespace-delete' AND e.at > o.created_at
        ) AS is_removed) of
        WHERE revoked_at IS NULL
        GROUP BY o.id HAVING bool_or(is_removed)
    ) found WHERE found.id = t.id
"""


class Migration(migrations.Migration):

    dependencies = [
        ('orchestrator', '0014_stop_causes'),
    ]

    operations = [
        migrations.AddField(
            model_name='namespace',
            name='journal_from',
            field=models.BigIntegerField(db_default=orchestrator.models.access.NextEvent(), editable=False),
        ),
        migrations.RunSQL(_BEGIN, migrations.RunSQL.noop),
        migrations.RunSQL(_REMOVED, migrations.RunSQL.noop),
    ]
