"""`manage.py token`: the bearer tokens of the HTTP API, made, listed and revoked."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from orchestrator.access import tokens
from orchestrator.models import ApiToken

DEFAULT_DAYS = 90
_SPAN = re.compile(r"([1-9][0-9]{0,5})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Command(BaseCommand):
    help = "Make, list and revoke tokens of the HTTP API."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a token; its secret is printed once")
        create.add_argument("--user", required=True, help="whose token it is")
        create.add_argument("--name", required=True, help="what it is for")
        create.add_argument(
            "--scope",
            action="append",
            choices=list(tokens.SCOPES),
            help="what it may do; each includes the ones before it (default: read)",
        )
        create.add_argument(
            "--expires-in", default=f"{DEFAULT_DAYS}d", help="for example 12h or 90d, or never"
        )
        verbs.add_parser("list", help="all tokens, without their secrets")
        revoke = verbs.add_parser("revoke", help="make a token worthless")
        revoke.add_argument("token", help="its id, or the beginning of it as in at_<this>_…")

    def handle(self, *_arguments: Any, **options: Any) -> None:
        {"create": self._create, "list": self._list, "revoke": self._revoke}[options["verb"]](
            options
        )

    def _create(self, options: dict[str, Any]) -> None:
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['user']!r}.")
        if not options["name"].isprintable() or not 1 <= len(options["name"]) <= 100:
            raise CommandError("A token's name has 1 to 100 printable characters.")
        secret = tokens.create(
            user=user,
            name=options["name"],
            scopes=options["scope"] or ["read"],
            expires_in=_span(options["expires_in"]),
        )
        self.stdout.write(secret)
        self.stderr.write("Keep it: it is not shown again.")

    def _list(self, _options: dict[str, Any]) -> None:
        for token in ApiToken.objects.select_related("user").order_by("created_at"):
            state = "revoked" if token.revoked_at else f"expires {token.expires_at or 'never'}"
            scopes = ",".join(token.scopes)
            self.stdout.write(
                f"{token.id.hex[:8]}  {token.user.username}  {token.name}  {scopes}  {state}"
            )

    def _revoke(self, options: dict[str, Any]) -> None:
        beginning = options["token"].removeprefix(tokens.PREFIX).split("_")[0].replace("-", "")
        found = [it.pk for it in ApiToken.objects.all() if it.pk.hex.startswith(beginning)]
        if not beginning or len(found) != 1:
            raise CommandError(f"{len(found)} tokens have an id that begins so; name one.")
        was_good = tokens.revoke(found[0])
        self.stdout.write("Revoked." if was_good else "It was revoked already.")


def _span(text: str) -> timedelta | None:
    if text == "never":
        return None
    found = _SPAN.fullmatch(text)
    if found is None:
        raise CommandError("Say --expires-in as 30m, 12h or 90d, or never.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
