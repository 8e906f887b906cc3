"""Templates: what they may do, and that nothing else is possible."""

from __future__ import annotations

import pytest

from meterline.alerting.notify.core.messages import alert_view, filled
from meterline.schemas.templates import (
    ALERT_FIELDS,
    OUTPUT_LENGTH_MAX,
    TemplateError,
    check_template,
    render,
)
from tests.alerting_story import RESEARCH, Scenario


@pytest.mark.parametrize(
    "source",
    [
        "{{ alert.summary }} ({{ alert.severity | upper }})",
        "{% for each in alerts %}{{ loop.index }}. {{ each.scope }}\n{% endfor %}",
        "{% if status == 'resolved' %}over{% elif alert.percent >= 90 %}now{% endif %}",
        "{{ alert.ends_at or 'lasts' }}{{ alert.also_crossed | join(', ') }}",
    ],
)
def test_templates_that_operators_write_are_accepted(source: str) -> None:
    """Reading, deciding, listing, and a few filters."""
    check_template(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ alert.__class__ }}",
        "{{ alert['scope'].__class__ }}",
        "{{ range(10) }}",
        "{{ alert.scope.upper() }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 2 ** 1000000 }}",
        "{{ alert.scope | attr('x') }}",
        "{{ alert.scope | center(1000000000) }}",
        "{% for a in alerts %}{% for b in alerts %}x{% endfor %}{% endfor %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% macro m() %}{% endmacro %}",
        "{% set x = 1 %}{{ x }}",
        "{{ nothing }}",
        "{{ alert.nothing }}",
        "{% if status == 'resolved' %}{{ alert.nothing }}{% endif %}",
        "{{ alert.percent + 'x' }}",
        "{{ unclosed",
        "{% for each in alerts %}{{ each.nothing }}{% endfor %}",
        "{{ alert.scope.nothing }}",
    ],
)
def test_everything_else_is_refused(source: str) -> None:
    """No call, no attribute that is no field, no work without end, no misspelt name."""
    with pytest.raises(TemplateError):
        check_template(source)


def test_the_documented_fields_are_those_that_exist() -> None:
    """Neither an unknown field nor one that is missing."""
    story = Scenario("2026-10-05T12:00:00Z")
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "92")
    view = alert_view(story.alerts[0])
    assert set(ALERT_FIELDS) == set(view)


def test_a_text_is_bounded() -> None:
    """A template that repeats what is long is cut."""
    assert len(render("{{ a }}{{ a }}", {"a": "x" * OUTPUT_LENGTH_MAX})) == OUTPUT_LENGTH_MAX


def test_a_template_that_fails_on_real_data_loses_no_alert() -> None:
    """The built-in one stands in."""
    story = Scenario("2026-10-05T12:00:00Z")
    story.policy(RESEARCH, month="100")
    story.spend(RESEARCH, "92")
    text = filled("{{ alert.explanation.nope }}", "{{ alert.scope }}", story.alerts[:1], "ops")
    assert text == RESEARCH
