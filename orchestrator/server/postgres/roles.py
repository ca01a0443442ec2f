"""Who may connect to the embedded server: three roles, each by a password made for it.

What is missing is made at every start, so a start that was cut short is repaired by the next one,
and so is a directory of a release that trusted whoever reached the socket.
"""

import os
import secrets
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg import sql

from orchestrator.server import child_processes, private_files

from .owner import Owner
from .place import APPLICATION, DATABASE, OWNER, SUPERUSER, Place, PostgresError

ACCESS = """\
# Written by Muster at each start: nobody is believed without a password.
local all all scram-sha-256
"""

# The superuser's password comes last: where it is right, so are the others.
ROLES = (APPLICATION, OWNER, SUPERUSER)

NOT_OF_THE_OWNER = """
    SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW'
                WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END, c.oid::regclass::text
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relowner <> %(owner)s::regrole
      AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                      AND d.objid = c.oid AND d.deptype IN ('a', 'i', 'e'))
    UNION ALL
    SELECT 'ROUTINE', p.oid::regprocedure::text
    FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace AND p.proowner <> %(owner)s::regrole
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
                      AND d.objid = p.oid AND d.deptype = 'e')
"""
"""Tables and functions of releases in which the superuser was everything; what a table or an
extension brings goes with it."""


LARGE_OBJECTS = "lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea)"
"""What makes objects that no table has, and that nothing of ours would ever delete."""


def make_passwords(where: Place) -> None:
    """Make a password for each role, where they are not there yet."""
    if set(_passwords(where)) == set(ROLES):
        return
    home = where.home.stat()
    made = "".join(f"*:*:*:{role}:{secrets.token_hex(32)}\n" for role in ROLES)
    # Root may run what belongs to somebody else, who will need them next time.
    _write(where.passwords, made, (home.st_uid, home.st_gid))


def ask_for_passwords(data: Path, owner: Owner) -> None:
    """Have the server of *data* believe nobody without a password."""
    rules = data / "pg_hba.conf"
    with suppress(FileNotFoundError):
        if rules.read_text() == ACCESS:
            return
    _write(rules, ACCESS, owner)


def set_passwords(
    where: Place, data: Path, server: Path, owner: Owner, environ: Mapping[str, str]
) -> None:
    """Make the roles of *data* and set their passwords, while no server runs on it.

    The *server* does it by itself, without connections: the way in for who has no password.
    """
    statements = "".join(
        f"DO $$ BEGIN IF to_regrole('{role}') IS NULL THEN CREATE ROLE {role}; END IF; END $$;\n"
        f"ALTER ROLE {role} LOGIN PASSWORD '{password}';\n"
        for role, password in sorted(_passwords(where).items(), key=lambda it: ROLES.index(it[0]))
    )
    alone = child_processes.start(
        # Random passwords need no slow hash, and connections come by the hundred.
        [server, "--single", "-D", data, "-c", "scram_iterations=1", "postgres"],
        by=signal.SIGKILL,
        environ=environ,
        owner=owner,
        input=subprocess.PIPE,
        output=subprocess.PIPE,
        directory="/",
    )
    try:
        printed, _ = alone.communicate(statements.encode())
    except BaseException:
        child_processes.kill_group(alone)
        alone.wait()
        raise
    if alone.returncode or b"ERROR:" in printed:
        said = printed.decode(errors="replace").split("STATEMENT:")[0]
        raise PostgresError(f"The roles of {data} could not be made:\n{said}")


def are_set(where: Place) -> bool:
    """Whether the server believes our passwords; it runs.

    Every role may change its own, so each is tried.
    """
    try:
        for role in ROLES:
            psycopg.connect(where.conninfo("postgres", role)).close()
    except psycopg.OperationalError as why:
        if "password authentication failed" in str(why) or "does not exist" in str(why):
            return False
        raise
    return True


def hand_over(where: Place) -> None:
    """Make the database, and everything in it the owner's; in a running server.

    What a role has set for itself, as every role may, is as it was again.
    """
    owner, database = sql.Identifier(OWNER), sql.Identifier(DATABASE)
    with psycopg.connect(where.conninfo("postgres", SUPERUSER), autocommit=True) as connection:
        with suppress(psycopg.errors.DuplicateDatabase):
            connection.execute(sql.SQL("CREATE DATABASE {}").format(database))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(database, owner))
        for role in map(sql.Identifier, ROLES):
            connection.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(role))
            connection.execute(
                sql.SQL("ALTER ROLE {} IN DATABASE {} RESET ALL").format(role, database)
            )
    with psycopg.connect(where.conninfo(user=SUPERUSER)) as connection:
        connection.execute(f"REVOKE EXECUTE ON FUNCTION {LARGE_OBJECTS} FROM PUBLIC")
        found = connection.execute(NOT_OF_THE_OWNER, {"owner": OWNER}).fetchall()
        for kind, name in found:
            connection.execute(f"ALTER {kind} {name} OWNER TO {OWNER}")


def _passwords(where: Place) -> dict[str, str]:
    """The password of each role that has one."""
    try:
        lines = where.passwords.read_text().splitlines()
    except FileNotFoundError:
        return {}
    fields = [line.split(":") for line in lines]
    return {it[3]: it[4] for it in fields if len(it) == 5 and it[3] in ROLES}


def _write(file: Path, text: str, owner: Owner) -> None:
    """Write *file* whole or not at all, for *owner* alone."""
    half = file.with_name(f"{file.name}.half")
    half.unlink(missing_ok=True)
    with open(half, "x", opener=private_files.private) as written:
        if owner is not None and os.geteuid() == 0:
            os.fchown(written.fileno(), *owner)
        written.write(text)
        written.flush()
        os.fsync(written.fileno())
    half.replace(file)
