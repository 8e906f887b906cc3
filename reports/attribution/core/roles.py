"""Pure: the SQL that lets one organisation's analysts read its own rows and nothing else.

For a real ClickHouse server with access control; the embedded one knows no users. The role may
read the tables that are filtered by a row policy and the views over them; it cannot write, and
`persons` is not among them.
"""

from __future__ import annotations

from meterline.schemas.scopes import check_organisation

TABLES = ("usage_events", "spend_windows", "usage_days", "usage_day_cells")
VIEWS = ("analyst_events", "analyst_spend")


def statements(organisation: str, database: str, cluster: str = "") -> list[str]:
    """Statements to run as an administrator, each of which may be repeated.

    Args:
        organisation: the tenant.
        database: where the tables are.
        cluster: name of the cluster; empty on a single server.

    Raises:
        ScopeError: no organisation can be called so.
    """
    role = _name(f"analyst_{check_organisation(organisation)}")
    on_cluster = f" ON CLUSTER {_name(cluster)}" if cluster else ""
    where = _name(database)
    tables = [*TABLES, *(f"{table}_local" for table in TABLES if cluster)]
    created = (
        f"CREATE ROLE IF NOT EXISTS {role}{on_cluster} SETTINGS readonly = 2, "
        "max_execution_time = 120, max_memory_usage = 8000000000"
    )
    policies = [
        f"CREATE ROW POLICY IF NOT EXISTS {role}{on_cluster} ON {where}.{table} "
        f"USING organisation = {_text(organisation)} TO {role}"
        for table in tables
    ]
    grants = [
        f"GRANT{on_cluster} SELECT ON {where}.{table} TO {role}" for table in (*tables, *VIEWS)
    ]
    return [created, *policies, *grants]


def _name(text: str) -> str:
    return "`" + text.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
