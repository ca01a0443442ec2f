"""Whoever writes events says so, for readers to stay below; the feed is read by id."""

import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('orchestrator', '0015_journal_of_a_namespace'),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name='event',
            name='event_feed',
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='event',
            trigger=pgtrigger.compiler.Trigger(name='event_is_announced', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n                PERFORM pg_advisory_xact_lock_shared(7669348690435244032 + coalesce(pg_sequence_last_value('orchestrator_event_id_seq'), 0));\n                RETURN NULL;\n            ", hash='d483ca4913a6996b126b8ab0935e7d2e4f382c13', level='STATEMENT', operation='INSERT', pgid='pgtrigger_event_is_announced_ade62', table='orchestrator_event', when='BEFORE')),
        ),
    ]
