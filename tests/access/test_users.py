"""The roles of users as they are read, and for how long they are believed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from orchestrator import access
from orchestrator.access import Role
from orchestrator.models import RoleBinding
from tests import rows


@pytest.mark.django_db(transaction=True)
def test_what_is_read_while_a_role_is_taken_away_is_not_believed_after_that():
    ana = rows.user("ana", "operator")

    def elsewhere():
        try:
            return access.rights_of(ana).everywhere
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            RoleBinding.objects.get(user=ana).delete()
            assert pool.submit(elsewhere).result() == Role.OPERATOR, "it is not gone yet"
        assert pool.submit(elsewhere).result() == Role.NONE
