"""`manage.py migrate`: Django's own; then triggers that nobody turns off, and who may do what."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.core.management.commands import migrate

from orchestrator.server import database_rights


class Command(migrate.Command):
    """As the owner of the schema."""

    def handle(self, *arguments: Any, **options: Any) -> None:
        super().handle(*arguments, **options)
        if options["plan"]:
            return
        database_rights.heed_all_triggers()
        if settings.APPLICATION_ROLE is None:
            if options["verbosity"]:
                self.stdout.write(database_rights.ONE_ROLE)
            return
        try:
            database_rights.grant(settings.APPLICATION_ROLE)
        except database_rights.NoSuchRole as why:
            raise CommandError(str(why)) from None
