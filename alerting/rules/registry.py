"""Every kind of rule, by its field in the `rules` section of the policy file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from meterline.alerting.rules.policy_entries import (
    BurnRateKind,
    DeviationKind,
    NoDataKind,
    PipelineKind,
)
from meterline.schemas.policy_kinds import RuleKind

_KINDS: tuple[RuleKind[Any, Any], ...] = (
    DeviationKind(),
    BurnRateKind(),
    NoDataKind(),
    PipelineKind(),
)
RULE_KINDS: Mapping[str, RuleKind[Any, Any]] = MappingProxyType(
    {kind.name: kind for kind in _KINDS}
)
