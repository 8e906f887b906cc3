"""The analysts' role on the real engine: its statements parse, its grants and filters hold.

chDB has no users of its own making: nothing can be created there. But it obeys a users file, so
the role's own grants and row filters are laid upon its only user, in a process of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.reports.attribution.core.roles import TABLES, VIEWS, statements
from meterline.sinks.migrate import migrate
from tests.close_store import october_events, store_events
from tests.servers import running_clickhouse

pytestmark = pytest.mark.functional
_ASK = """
import json, sys
import chdb
connection = chdb.connect(sys.argv[1])
answers = {}
for question in sys.argv[2:]:
    try:
        answers[question] = str(connection.query(question, "CSV"))
    except RuntimeError as error:
        answers[question] = "refused" if "ACCESS_DENIED" in str(error) else str(error)
print(json.dumps(answers))
"""
_USERS = """<clickhouse>
<profiles><default><readonly>2</readonly></default></profiles><quotas><default/></quotas>
<users><default><password/><networks><ip>::/0</ip></networks><profile>default</profile>
<quota>default</quota><grants>{grants}</grants><databases><default>{filters}</default></databases>
</default></users></clickhouse>"""


def users_file(organisation: str) -> str:
    """The role as a users file: the same grants, the same filters."""
    grants, filters = "", ""
    for each in statements(organisation, "default"):
        policy = re.search(r"ON `default`\.(\w+) USING (.+) TO ", each)
        if policy is not None:
            filters += f"<{policy[1]}><filter>{escape(policy[2])}</filter></{policy[1]}>"
        elif each.startswith("GRANT"):
            grants += f"<query>{escape(each.rpartition(' TO ')[0])}</query>"
    return _USERS.format(grants=grants, filters=filters)


def asked(folder: Path, organisation: str, *questions: str) -> dict[str, str]:
    (folder / "users.xml").write_text(users_file(organisation), encoding="utf-8")
    config = folder / "config.xml"
    text = f"<clickhouse><users_config>{folder}/users.xml</users_config></clickhouse>"
    config.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", _ASK, f"{folder}/data?config-file={config}", *questions],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two organisations, its server stopped; every statement was parsed by it."""
    folder = tmp_path_factory.mktemp("role")
    with running_clickhouse(folder / "data") as (host, port):
        client = Client(ClickHouseConfig(host, port))
        migrate(client)
        store_events(client, october_events(40), 10)
        for cluster in ("", "main"):
            for each in statements("it's `acme`", "default", cluster):
                client.query("SELECT formatQuery({sql:String})", {"sql": each})
        client.close()
    return folder


def test_a_tenant_sees_its_own_rows_and_nothing_else(folder: Path) -> None:
    """Tables and views show one organisation; other tables, and writing, are refused."""
    own = [
        f"SELECT DISTINCT organisation FROM {name}{final}"  # noqa: S608 - fixed names
        for name, final in (
            ("usage_events", " FINAL"),
            ("spend_windows", ""),
            ("analyst_events", ""),
            ("analyst_spend", ""),
        )
    ]
    forbidden = [
        "SELECT count() FROM persons",
        "SELECT count() FROM audit_log",
        "SELECT count() FROM closed_lines",
        "SELECT count() FROM price_adjustments",
        "INSERT INTO usage_events (event_id) VALUES ('x')",
        "ALTER TABLE usage_events DELETE WHERE 1",
        "DROP TABLE usage_events",
    ]
    counted = "SELECT count() FROM analyst_events"
    for organisation, events in (("acme", 30), ("globex", 10), ("nobody", 0)):
        answers = asked(folder, organisation, *own, *forbidden, counted)
        expected = f'"{organisation}"\n' if events else ""
        assert {answers[each] for each in own} == {expected}
        assert {answers[each] for each in forbidden} == {"refused"}
        assert answers[counted] == f"{events}\n"


def test_every_granted_table_is_filtered() -> None:
    """No table is readable without a row policy; a view reads as its reader, so it needs none."""
    made = statements("acme", "default")
    granted = {each.split("`default`.")[1].split()[0] for each in made if each.startswith("GRANT")}
    filtered = {each.split("`default`.")[1].split()[0] for each in made if "ROW POLICY" in each}
    assert granted == {*TABLES, *VIEWS}
    assert granted - filtered == set(VIEWS)
