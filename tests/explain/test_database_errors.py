"""What a database error means, from real servers and from the words that PostgreSQL has."""

import errno
import select

import psycopg
import pytest
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.utils import InternalError

from orchestrator.explain import database_errors
from orchestrator.explain.database_errors import Trouble, classify
from orchestrator.models import ClusterSetting
from orchestrator.server.environment import HOME


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (psycopg.errors.DiskFull("could not extend file"), "database-full"),
        (psycopg.errors.TooManyConnections("sorry"), "database-connections"),
        (psycopg.errors.CannotConnectNow("starting up"), "database-starting"),
        (psycopg.errors.AdminShutdown("terminating connection"), "database-starting"),
        (psycopg.errors.LockNotAvailable("lock timeout"), "busy"),
        (psycopg.errors.QueryCanceled("statement timeout"), "busy"),
        (psycopg.errors.InsufficientPrivilege("permission denied for table"), "database-rights"),
        (psycopg.errors.DeadlockDetected("deadlock"), "busy"),
        (
            psycopg.OperationalError("FATAL:  sorry, too many clients already"),
            "database-connections",
        ),
        (
            psycopg.OperationalError("FATAL:  the database system is starting up"),
            "database-starting",
        ),
        (psycopg.OperationalError("the database system is in recovery mode"), "database-starting"),
        (psycopg.errors.ConnectionTimeout("connection timeout expired"), "database-silent"),
        (psycopg.OperationalError("server closed the connection"), "database-unreachable"),
        (psycopg.InterfaceError("the connection is closed"), "database-unreachable"),
        (OSError(errno.EMFILE, "Too many open files"), "process-files"),
        (psycopg.OperationalError("password authentication failed for user"), "database-refused"),
    ],
)
def test_an_outage_has_a_code_a_sentence_and_a_cure(error, code):
    found = classify(error)
    assert found.code == code
    assert found.sentence.endswith(".")
    assert found.cure.endswith(".")


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.UndefinedColumn("no such column"),
        psycopg.errors.UniqueViolation("twice"),
        psycopg.errors.InFailedSqlTransaction("aborted"),
        ValueError("nothing of the kind"),
        OSError(errno.ENOENT, "No such file"),
        None,
    ],
)
def test_a_mistake_of_ours_is_no_outage(error):
    assert classify(error) is None


def test_the_manual_names_every_code():
    codes = {it.code for it in vars(database_errors).values() if isinstance(it, Trouble)}
    manual = (HOME / "docs" / "api.md").read_text()
    assert {code for code in codes if f"`{code}`" not in manual} == set()


def test_a_server_that_is_not_there_is_unreachable():
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect("host=127.0.0.1 port=1 connect_timeout=2")
    assert classify(refused.value) == database_errors.UNREACHABLE
    with pytest.raises(psycopg.OperationalError) as missing:
        psycopg.connect("host=/nowhere connect_timeout=2")
    assert classify(missing.value) == database_errors.UNREACHABLE


@pytest.mark.django_db(transaction=True)
def test_a_read_only_database_is_known_through_django():
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
        with pytest.raises(InternalError) as refused:
            ClusterSetting.objects.update(scheduling_paused=False)
        transaction.set_rollback(True)
    assert classify(refused.value) == database_errors.READ_ONLY


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_was_stopped_for_too_long_may_be_tried_again(eventually):
    @transaction.atomic
    def change() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '1s'")
        socket = select.poll()
        socket.register(connection.connection.fileno(), select.POLLRDHUP)
        eventually(lambda: socket.poll(0))  # The server has hung up.
        ClusterSetting.objects.first()

    with pytest.raises(InternalError) as ended:
        change()
    connection.close()
    assert classify(ended.value) == database_errors.OVERDUE


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_is_closed_is_unreachable_through_django():
    connection.ensure_connection()
    connection.connection.close()
    with pytest.raises((InterfaceError, OperationalError)) as gone:
        ClusterSetting.objects.first()
    connection.close()
    assert classify(gone.value) == database_errors.UNREACHABLE
