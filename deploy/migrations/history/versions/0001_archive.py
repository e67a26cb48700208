"""The archive, which nothing can change, and the first read model."""

import sqlalchemy as sa
from alembic import op

from services.history.tables import metadata

revision = "history_0001"
down_revision = None

_SQLITE = (
    (
        "CREATE TRIGGER events_no_update BEFORE UPDATE ON events "
        "BEGIN SELECT RAISE(ABORT, 'the archive is append-only'); END"
    ),
    (
        "CREATE TRIGGER events_no_delete BEFORE DELETE ON events "
        "BEGIN SELECT RAISE(ABORT, 'the archive is append-only'); END"
    ),
    # INSERT OR REPLACE deletes the old row without firing the delete trigger unless recursive_triggers is
    # on, which is a setting of the connection: so the insert itself is refused where the row exists.
    (
        "CREATE TRIGGER events_no_replace BEFORE INSERT ON events "
        "WHEN EXISTS (SELECT 1 FROM events WHERE sequence = NEW.sequence) "
        "BEGIN SELECT RAISE(ABORT, 'the archive is append-only'); END"
    ),
)
_POSTGRESQL = (
    (
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the archive is append-only'; END $$"
    ),
    (
        "CREATE TRIGGER events_no_change BEFORE UPDATE OR DELETE ON events "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    ),
    (
        "CREATE TRIGGER events_no_truncate BEFORE TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    ),
)


def upgrade() -> None:
    """Create tables and triggers."""
    bind = op.get_bind()
    metadata.create_all(bind)
    for statement in _SQLITE if bind.dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(sa.text(statement))
