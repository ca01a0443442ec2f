"""`manage.py rotate_secrets`: a new key for all secrets, and the old ones forgotten."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from nodes.errors import MusterError
from orchestrator.explain.formatting import counted
from orchestrator.models import Secret, sealing


class Command(BaseCommand):
    help = "Seal all secrets with a new key, and forget the old ones; whatever runs may go on."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--keep-file",
            action="store_true",
            help="seal with the first key that is in the file, and leave the file alone",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            count = _rotate(keep_file=options["keep_file"])
        except MusterError as error:
            raise CommandError(f"{error} {error.hint}") from None
        are = "is" if count == 1 else "are"
        self.stdout.write(f"{counted(count, 'secret')} {are} sealed with a new key.")


def _rotate(*, keep_file: bool) -> int:
    """First both keys, then everything anew, then one: wherever it ends, all can be read.

    Also when another rotation begins or ends in between: who seals last forgets.
    """
    count = 0
    with transaction.atomic():
        sealing.hold_keys(alone=True)
        if not keep_file:
            sealing.new_first_key()
        for row in Secret.objects.select_for_update().order_by("pk"):
            row.sealed = sealing.sealed_anew(row.namespace_id, row.name, row.sealed)
            row.save(update_fields=["sealed"])
            count += 1
    if not keep_file:
        with transaction.atomic():
            sealing.hold_keys(alone=True)
            if sealing.are_newest(Secret.objects.values_list("sealed", flat=True)):
                sealing.only_first_key()
    return count
