"""The SQL of a tenant's role."""

from __future__ import annotations

import pytest

from meterline.reports.attribution.core.roles import TABLES, statements
from meterline.schemas.scopes import ScopeError


def test_every_table_has_policy_and_grant() -> None:
    """Whatever the role may read of tables is filtered by its organisation, and it reads only."""
    found = statements("acme", "metering")
    for table in TABLES:
        assert (
            f"CREATE ROW POLICY IF NOT EXISTS `analyst_acme` ON `metering`.{table} "
            "USING organisation = 'acme' TO `analyst_acme`"
        ) in found
    grants = [each for each in found if each.startswith("GRANT")]
    assert all(each.startswith("GRANT SELECT ON `metering`.") for each in grants)
    assert not any("persons" in each for each in found)


def test_cluster_filters_local_tables_too() -> None:
    """On a cluster a distributed table reads local ones: both are filtered."""
    found = "\n".join(statements("acme", "m", "main"))
    assert "ON CLUSTER `main` ON `m`.usage_events_local USING" in found


def test_names_are_quoted() -> None:
    """An organisation's name cannot leave its quotes."""
    sql = "\n".join(statements("o'brien` --\\", "m"))
    assert "'o\\'brien` --\\\\'" in sql
    assert "`analyst_o'brien\\` --\\\\`" in sql
    with pytest.raises(ScopeError):
        statements("a/b", "m")
