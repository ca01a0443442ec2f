"""What a node said of itself moves under ``node.``; what it was given stays.

Of a label that a node has now nobody wrote down where it came from.  It was given when every join
token that the node can have joined with carries it; every other one may be the node's own word.
"""

from django.db import migrations

_MOVE = """
    WITH said AS (
        SELECT n.id, one.key, one.value,
            one.key <> 'name' AND NOT starts_with(one.key, 'node.')
            AND coalesce((
                SELECT bool_and(t.labels -> one.key IS NOT DISTINCT FROM one.value)
                FROM nodes_jointoken t
                WHERE n.created_at BETWEEN t.created_at AND t.expires_at
                    AND (t.revoked_at IS NULL OR t.revoked_at >= n.created_at)
            ), false) AS is_given
        FROM nodes_node n, jsonb_each(n.labels) AS one
    )
    UPDATE nodes_node n SET
        labels = coalesce((
            SELECT jsonb_object_agg(key, value) FROM said WHERE said.id = n.id AND is_given
        ), '{}'),
        attributes = coalesce((
            SELECT jsonb_object_agg('node.' || key, value) FROM jsonb_each(n.attributes)
        ), '{}') || coalesce((
            SELECT jsonb_object_agg('node.' || key, value)
            FROM said WHERE said.id = n.id AND NOT is_given
        ), '{}')
    WHERE n.labels <> '{}' OR n.attributes <> '{}'
"""

_MOVE_BACK = """
    UPDATE nodes_node n SET attributes = (
        SELECT jsonb_object_agg(substr(key, length('node.') + 1), value)
        FROM jsonb_each(n.attributes)
    )
    WHERE n.attributes <> '{}'
"""


class Migration(migrations.Migration):
    dependencies = [("nodes", "0006_session_address")]

    operations = [migrations.RunSQL(_MOVE, _MOVE_BACK)]
