"""What on-call reads is what there is."""

from __future__ import annotations

from pathlib import Path

from meterline.alerting.notify.channels.registry import CHANNEL_KINDS
from meterline.schemas.delivery import DeliveryOutcome
from meterline.schemas.matchers import LABELS
from meterline.schemas.rule_ref import RuleId
from meterline.schemas.templates import ALERT_FIELDS, FILTERS, VARIABLES

DOCS = Path(__file__).parents[3] / "docs"


def test_oncall_page_knows_every_rule_label_and_outcome() -> None:
    """On-call finds the word of the message on the page."""
    page = (DOCS / "oncall.md").read_text(encoding="utf-8")
    words = [*RuleId, *LABELS, *DeliveryOutcome]
    assert [word for word in words if f"`{word}`" not in page] == []


def test_every_channel_has_its_page_and_templates_their_words() -> None:
    """Fields, variables and filters of templates are all listed."""
    page = (DOCS / "channels" / "README.md").read_text(encoding="utf-8")
    assert [name for name in CHANNEL_KINDS if not (DOCS / f"channels/{name}.md").is_file()] == []
    assert [word for word in (*ALERT_FIELDS, *VARIABLES) if f"`{word}`" not in page] == []
    assert [word for word in FILTERS if word not in page] == []
