"""The policy file's finance section: the objects of `schemas.finance` as operators write them."""

from __future__ import annotations

from pydantic import ConfigDict

from meterline.schemas.finance import (
    ExchangeRate,
    FinancePolicy,
    JournalAccounts,
    JournalLayout,
    PushTarget,
    SharedCost,
)
from meterline.schemas.policy_entry import Entry


class ExchangeRateEntry(ExchangeRate, Entry):
    """One exchange rate."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AccountsEntry(JournalAccounts, Entry):
    """Accounts of the journal."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class JournalEntry(JournalLayout, Entry):
    """One journal file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SharedEntry(SharedCost, Entry):
    """One shared cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PushEntry(PushTarget, Entry):
    """Receiver of the closed month."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FinanceEntry(FinancePolicy, Entry):
    """The monthly close; what is not written has the default of FinancePolicy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rates: tuple[ExchangeRateEntry, ...] = ()
    accounts: AccountsEntry = AccountsEntry()
    journals: tuple[JournalEntry, ...] = tuple(
        JournalEntry(id=each.id, type=each.type) for each in FinancePolicy().journals
    )
    shared: tuple[SharedEntry, ...] = ()
    push: PushEntry | None = None
