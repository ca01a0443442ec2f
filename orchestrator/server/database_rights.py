"""What the application's database role may do with each table: rows, and not all of them."""

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

EVERYTHING = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
APPENDED = frozenset({"SELECT", "INSERT"})
COUNTED = frozenset({"USAGE"})
"""Of a sequence: numbers may be taken, not set back."""
NOTHING: frozenset[str] = frozenset()
"""Of a partition: it is read and written through its table, whose rights and triggers hold."""

RIGHTS = {
    "orchestrator_event": APPENDED,
    "orchestrator_executionhistory": APPENDED,
    "django_migrations": frozenset({"SELECT"}),
}
"""Tables of which it may not do everything.  Their triggers refuse the same, but a session can
have our triggers ignored; a right that it lacks it cannot take."""


ONE_ROLE = (
    "One database role owns the schema and runs the application: docs/security.md says how to "
    "make two (MUSTER_MIGRATE_URL)."
)


_NONE_IS_IGNORED = """
    CREATE OR REPLACE FUNCTION _pgtrigger_should_ignore(trigger_name name) RETURNS boolean
    LANGUAGE sql IMMUTABLE AS 'SELECT false'
"""
"""django-pgtrigger's own function believes a setting that any session may make."""


def heed_all_triggers() -> None:
    """Have no trigger of ours ignored, whatever a session says; as the owner of the schema."""
    with connection.cursor() as cursor:
        cursor.execute(_NONE_IS_IGNORED)


class NoSuchRole(Exception):
    """The database has no such role; the message names it."""


def grant(role: str) -> None:
    """Give *role* its rights to all tables there are, as their owner; takes away what is too much.

    It can make nothing either: no tables, no functions, not even temporary ones; but it may call
    those of ours that make and drop partitions.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT to_regrole(quote_ident(%s))::oid", [role])
        (oid,) = cursor.fetchone()
        if oid is None:
            raise NoSuchRole(
                f"The database has no role {role!r}, as which DATABASE_URL connects. "
                "docs/security.md says how to make it."
            )
        name = connection.ops.quote_name(role)
        for statement in _missing(cursor, oid):
            cursor.execute(statement.format(role=name))


def _missing(cursor: CursorWrapper, role: int) -> list[str]:
    """What must be said so that *role* has the rights that it should, and no others."""
    cursor.execute(
        """
        SELECT c.relkind, c.relname, c.oid::regclass::text, c.relispartition,
               ARRAY(SELECT privilege_type FROM aclexplode(c.relacl) WHERE grantee = %s)
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
        ORDER BY c.relname
        """,
        [role],
    )
    statements = []
    for kind, name, quoted, is_partition, found in cursor.fetchall():
        wanted = COUNTED if kind == "S" else RIGHTS.get(name, EVERYTHING)
        if is_partition:
            wanted = NOTHING
        if set(found) != wanted:
            what = f"SEQUENCE {quoted}" if kind == "S" else quoted
            statements.append(f"REVOKE ALL ON {what} FROM {{role}}")
            if wanted:
                statements.append(f"GRANT {', '.join(sorted(wanted))} ON {what} TO {{role}}")
    cursor.execute(
        "SELECT oid::regprocedure::text FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace AND prosecdef"
        " AND NOT has_function_privilege(%s::oid, oid, 'EXECUTE')",
        [role],
    )
    statements += [f"GRANT EXECUTE ON FUNCTION {it} TO {{role}}" for (it,) in cursor.fetchall()]
    cursor.execute(
        "SELECT quote_ident(current_database()),"
        " has_schema_privilege(%(role)s, 'public', 'USAGE'),"
        " has_schema_privilege(%(role)s, 'public', 'CREATE'),"
        " has_database_privilege(%(role)s, current_database(), 'TEMPORARY')",
        {"role": role},
    )
    database, may_look, may_make, may_make_temporary = cursor.fetchone()
    if not may_look:
        statements.append("GRANT USAGE ON SCHEMA public TO {role}")
    if may_make:
        statements.append("REVOKE CREATE ON SCHEMA public FROM PUBLIC, {role}")
    if may_make_temporary:
        statements.append(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC, {{role}}")
    return statements
