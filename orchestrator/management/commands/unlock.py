"""`manage.py unlock`: let people sign in again who tried too often."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db.models import Q

from orchestrator.access import sign_in
from orchestrator.explain.formatting import counted
from orchestrator.models import FailedSignIns


class Command(BaseCommand):
    help = "Forget failed attempts to sign in: of a user, from an address, or all."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("who", nargs="?", help="a user or an address (default: all)")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        rows, who = FailedSignIns.objects.all(), options["who"]
        if who:
            rows = rows.filter(Q(name=who) | Q(address=sign_in.source(who)))
        done = sign_in.unlock(list(rows), actor="command line")
        self.stdout.write(f"Forgotten: {counted(done, 'count')} of failed attempts.")
