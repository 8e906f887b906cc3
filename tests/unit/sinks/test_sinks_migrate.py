"""Migrations as text: one server and a cluster."""

import re

import pytest

from meterline.sinks.migrate import (
    AppliedMigration,
    ClusterOptions,
    Migration,
    MigrationError,
    check_history,
    expand,
    shipped,
)

CLUSTER = ClusterOptions("main")
# Replace what an earlier run did: rows of a replacing table, views, settings.
REPEATABLE = (
    "INSERT INTO usage_changes",
    "CREATE OR REPLACE VIEW",
    "ALTER TABLE",
)
TEMPLATE = """
-- a comment; with a semicolon
CREATE TABLE IF NOT EXISTS {local:t} {on_cluster}
(
    a String COMMENT 'not -- a comment; nor an end'
)
ENGINE = {replacing:version, is_deleted}
ORDER BY a;

{distributed:t:cityHash64(a, b)}
"""


def test_one_server() -> None:
    """On one server there is one plain table, and quoted text is left alone."""
    assert Migration(1, "m", TEMPLATE).statements(None) == [
        (
            "CREATE TABLE IF NOT EXISTS t \n(\n    a String COMMENT 'not -- a comment; nor an end'\n)\n"
            "ENGINE = ReplacingMergeTree(version, is_deleted)\nORDER BY a"
        )
    ]


def test_cluster() -> None:
    """On a cluster there is a replicated local table and a distributed one over it."""
    local, distributed = Migration(1, "m", TEMPLATE).statements(CLUSTER)
    assert "EXISTS t_local ON CLUSTER 'main'" in local
    assert (
        "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', "
        "'{replica}', version, is_deleted)"
    ) in local
    assert distributed == (
        "CREATE TABLE IF NOT EXISTS t ON CLUSTER 'main' AS t_local "
        "ENGINE = Distributed('main', currentDatabase(), t_local, cityHash64(a, b))"
    )


@pytest.mark.parametrize("cluster", [None, CLUSTER])
@pytest.mark.parametrize("migration", shipped(), ids=lambda each: each.name)
def test_shipped_files_expand_completely(
    migration: Migration, cluster: ClusterOptions | None
) -> None:
    """No placeholder is left over, and every statement may run twice."""
    statements = migration.statements(cluster)
    assert statements
    for statement in statements:
        macros = re.sub(r"\{(shard|replica|database|table)\}", "", statement)
        assert "{" not in macros
        repeatable = "IF NOT EXISTS" in statement or "IF EXISTS" in statement
        assert repeatable or statement.startswith(REPEATABLE)


@pytest.mark.parametrize("migration", shipped(), ids=lambda each: each.name)
def test_rows_that_replace_each_other_meet_on_one_shard(migration: Migration) -> None:
    """A sharding key is made of sorting columns only, else FINAL could not see both rows."""
    tables = re.split(r"(?=CREATE TABLE)", migration.template)[1:]
    for table in tables:
        sorting = re.search(r"(?m)^ORDER BY (.+)$", table)
        sharding = re.search(r"\{distributed:\w+:cityHash64\((.+)\)\}", table)
        assert sorting is not None
        assert sharding is not None
        assert set(sharding[1].split(", ")) <= set(re.findall(r"\w+", sorting[1]))


# Said once by the identity: (scope, epoch, seq) names one command, a source position one message,
# a run books into one month. Acknowledgements repeat, but are not read with FINAL.
FIXED_BY_THE_IDENTITY = {"throttle_commands", "throttle_acks", "dead_letters", "closed_lines"}


def test_rows_that_replace_each_other_meet_in_one_partition() -> None:
    """A partition is made of sorting columns: reads with FINAL never look across partitions."""
    found = set()
    for migration in shipped():
        for table in re.split(r"(?=CREATE TABLE)", migration.template)[1:]:
            name = re.search(r"\{local:(\w+)\}", table)
            partition = re.search(r"(?m)^PARTITION BY (?:toYYYYMM\()?(\w+)\)?$", table)
            sorting = re.search(r"(?m)^ORDER BY (.+)$", table)
            assert name is not None
            assert sorting is not None
            assert (partition is None) == ("PARTITION BY" not in table)
            if partition is not None and partition[1] not in re.findall(r"\w+", sorting[1]):
                found.add(name[1])
    assert found == FIXED_BY_THE_IDENTITY


def test_every_table_explains_its_order() -> None:
    """Each ORDER BY has a comment above it that says why."""
    for migration in shipped():
        lines = migration.template.splitlines()
        for number, line in enumerate(lines):
            if line.startswith("ORDER BY"):
                assert lines[number - 1].startswith("--"), f"{migration.name}:{number + 1}"


def test_names_that_cannot_stand_in_sql_are_refused() -> None:
    """A cluster name with a quote never reaches a statement."""
    for name in ("", "a'b", "a b", "x" * 63):
        with pytest.raises(MigrationError):
            ClusterOptions(name)
    with pytest.raises(MigrationError):
        ClusterOptions("main", keeper_path="/a'b")


def test_expand_leaves_other_braces_alone() -> None:
    """Server macros and parameters are not taken for placeholders."""
    assert expand("{shard} {a:String} {on_cluster}", None) == "{shard} {a:String} "


@pytest.mark.parametrize(
    ("applied", "cluster", "message"),
    [
        ({1: AppliedMigration("m", "other", "")}, "", "was edited"),
        ({2: AppliedMigration("0002_x.sql", "c", "")}, "", "install a newer version"),
        (
            {1: AppliedMigration("m", Migration(1, "m", "A").checksum, "")},
            "main",
            "a single server",
        ),
    ],
)
def test_other_history_is_refused(
    applied: dict[int, AppliedMigration], cluster: str, message: str
) -> None:
    """A database with another history than this installation's is left untouched."""
    with pytest.raises(MigrationError, match=message):
        check_history([Migration(1, "m", "A")], applied, cluster)


def test_same_history_is_accepted() -> None:
    """What was applied as it is shipped is fine, and missing files are not an error."""
    first = Migration(1, "m", "A")
    check_history(
        [first, Migration(2, "n", "B")], {1: AppliedMigration("m", first.checksum, "main")}, "main"
    )
