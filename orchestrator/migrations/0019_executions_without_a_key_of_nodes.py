"""Which node an execution is on is not checked by the server, for each of them, any more."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("orchestrator", "0018_the_queue")]

    operations = [
        migrations.AlterField(
            model_name="execution",
            name="node",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="executions",
                to="nodes.node",
            ),
        ),
    ]
