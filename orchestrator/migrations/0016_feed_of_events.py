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
            trigger=pgtrigger.compiler.Trigger(name='event_is_announced', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n                IF current_setting('muster.announced', true)\n                    IS DISTINCT FROM pg_current_xact_id()::text\n                THEN\n                    PERFORM pg_advisory_xact_lock_shared(7669348690435244032 + coalesce(pg_sequence_last_value('orchestrator_event_id_seq'), 0));\n                    PERFORM set_config('muster.announced', pg_current_xact_id()::text, true);\n                END IF;\n                RETURN NULL;\n            ", hash='8efed86d8895da1b60a07d1c473d6ed50459fd2a', level='STATEMENT', operation='INSERT', pgid='pgtrigger_event_is_announced_ade62', table='orchestrator_event', when='BEFORE')),
        ),
    ]
