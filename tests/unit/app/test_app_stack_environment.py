"""What workers of `meterline up` are told of the settings that `up` was given."""

from pathlib import Path

import pytest

from meterline.app.local.stack import worker_environment
from meterline.app.settings import CLOSES_DIRECTORY, ReportsSection, Settings


def test_workers_get_catalogues_and_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rate cards and the pull endpoint of `up` are those of its workers, wherever these run."""
    monkeypatch.chdir(tmp_path)
    Path("contract.json").write_text("{}", encoding="utf-8")
    given = Settings(
        data_dir=tmp_path,
        catalogues=(Path("contract.json"),),
        reports=ReportsSection(exports_port=8_099, exports_token_env="METERLINE_SECRET_ERP"),
    )
    for name, text in worker_environment(given, "reports", 9_100).items():
        monkeypatch.setenv(name, text)
    monkeypatch.chdir("/")
    told = Settings()
    assert told.catalogues == (tmp_path / "contract.json",)
    assert told.reports.directory == tmp_path / CLOSES_DIRECTORY
    assert (told.reports.exports_port, told.reports.exports_token_env) == (
        8_099,
        "METERLINE_SECRET_ERP",
    )
