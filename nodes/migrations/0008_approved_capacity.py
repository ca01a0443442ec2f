"""Of nodes that are approved what they offer now counts as approved."""

from django.db import migrations, models

_DIMENSIONS = ("cpu", "memory", "disk", "gpu")


class Migration(migrations.Migration):
    dependencies = [("nodes", "0007_labels")]

    operations = [
        *(
            migrations.AddField("node", f"approved_{it}", models.BigIntegerField(null=True))
            for it in _DIMENSIONS
        ),
        migrations.RunSQL(
            "UPDATE nodes_node SET "  # noqa: S608 - our own columns
            + ", ".join(f"approved_{it} = advertised_{it}" for it in _DIMENSIONS)
            + " WHERE approval = 'approved' AND ("
            + ", ".join(f"advertised_{it}" for it in _DIMENSIONS)
            + ") <> (0, 0, 0, 0)",
            migrations.RunSQL.noop,
        ),
    ]
