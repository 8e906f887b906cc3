"""The policies of a chaos run: budgets that are crossed all along, and one that asks for belief."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import yaml

from meterline.operations.replay.assign import Assigner
from meterline.operations.replay.synthetic import synthetic_trace
from meterline.pricing.catalogue import Catalogue
from meterline.schemas.money import usd_text
from meterline.schemas.scopes import ScopeType, scopes_of

SAMPLE_ROWS = 4_000
THRESHOLDS = (50, 75, 80, 90, 95, 100)
SECRET_NAME = "METERLINE_SECRET_CHAOS_HOOK"  # noqa: S105 - a name, no secret
CHANNEL = "chaos"
# Of what a scope would spend in the whole run: some are used up at once, some hardly begun.
BUDGET_SHARES = (0.05, 0.15, 0.3, 0.5, 0.8, 1.2, 2.0)
# Those that many requests pass: a used-up one would end much of the load.
WIDE_BUDGET_SHARES = (0.9, 1.5, 2.0)
WIDE = (ScopeType.ORGANISATION.value, ScopeType.DEPARTMENT.value, ScopeType.PROJECT.value)
BUDGET_NANO_USD_MIN = 1_000_000
ONE_NANO_USD = "0.000000001"


def load_policy(assigner: Assigner, catalogue: Catalogue, events: int, seed: int) -> dict[str, int]:
    """Month budgets in nano-USD by scope, for a run of about this many events.

    Half of the scopes have one, in shares of what they will spend, so that thresholds are crossed
    from the first second to the last.
    """
    spent = _expected(assigner, catalogue, seed)
    draw = random.Random(seed)
    budgets = {}
    for scope, nano_usd in sorted(spent.items()):
        share = draw.choice(WIDE_BUDGET_SHARES if scope.startswith(WIDE) else BUDGET_SHARES)
        if draw.random() < 1 / 2:
            continue
        budgets[scope] = max(BUDGET_NANO_USD_MIN, int(nano_usd * share * events / SAMPLE_ROWS))
    return budgets


def _expected(assigner: Assigner, catalogue: Catalogue, seed: int) -> Mapping[str, int]:
    spent: defaultdict[str, int] = defaultdict(int)
    for row in synthetic_trace(seed, SAMPLE_ROWS):
        event = assigner.event(row, "sample", 1_790_000_000_000, "sample")
        cost = catalogue.rate(event).cost_nano_usd
        for scope in scopes_of(
            event.organisation, event.department, event.project, event.user, event.key
        ):
            spent[scope] += cost
    return spent


def document(
    organisation: str,
    assigner: Assigner,
    receiver_url: str,
    budgets: Mapping[str, int] | None = None,
) -> str:
    """The policy file; without budgets, every scope may spend one nano-dollar and no token.

    The latter makes the alerts worker say what it believes each scope has spent.
    """
    tree = _Tree(organisation, budgets)
    text: str = yaml.safe_dump(
        {
            "version": 1,
            "time_zone": "UTC",
            "organisations": [tree.organisation(assigner)],
            "rules": {"thresholds_percent": list(THRESHOLDS)},
            "notify": {
                "channels": [
                    {
                        "id": CHANNEL,
                        "type": "webhook",
                        "url": receiver_url,
                        "secret_env": SECRET_NAME,
                        "allow_private_address": True,
                    }
                ]
            },
        },
        sort_keys=False,
    )
    return text


class _Tree:
    """The hierarchy of the assigner's keys as a policy file has it."""

    def __init__(self, organisation: str, budgets: Mapping[str, int] | None) -> None:
        self._name = organisation
        self._budgets = budgets

    def organisation(self, assigner: Assigner) -> dict[str, Any]:
        departments: dict[str, dict[str, list[str]]] = {}
        users: set[str] = set()
        for profile in assigner.profiles:
            projects = departments.setdefault(profile.department, {})
            projects.setdefault(profile.project, []).append(profile.key)
            users.update(profile.users)
        entry, most = self._entry(f"organisation:{self._name}", self._name, None)
        entry["users"] = [
            self._entry(f"user:{self._name}/{user}", user, most)[0] for user in sorted(users)
        ]
        entry["departments"] = [
            self._department(name, projects, most) for name, projects in departments.items()
        ]
        return entry

    def _department(
        self, name: str, projects: Mapping[str, list[str]], most: int | None
    ) -> dict[str, Any]:
        entry, least = self._entry(f"department:{self._name}/{name}", name, most)
        entry["projects"] = []
        for project, keys in projects.items():
            inner, least_inner = self._entry(f"project:{self._name}/{project}", project, least)
            inner["keys"] = [
                self._entry(f"key:{self._name}/{key}", key, least_inner)[0] for key in keys
            ]
            entry["projects"].append(inner)
        return entry

    def _entry(self, scope: str, name: str, most: int | None) -> tuple[dict[str, Any], int | None]:
        """The entry, and the least budget down to here: a child may not have more."""
        if self._budgets is None:
            limits = {
                "day_spend_usd": ONE_NANO_USD,
                "day_tokens": 1,
                "hour_spend_usd": ONE_NANO_USD,
            }
            return {"id": name, "budget": {"month_usd": ONE_NANO_USD}, "limits": limits}, None
        budget = self._budgets.get(scope)
        if budget is None:
            return {"id": name}, most
        if most is not None:
            budget = min(budget, most)
        return {"id": name, "budget": {"month_usd": usd_text(budget)}}, budget
