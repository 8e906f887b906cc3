"""`meterline`: the command line."""

from __future__ import annotations

import sys

import stamina
import typer

from app.commands import (
    alerts,
    audit,
    backtest,
    close,
    deliveries,
    demo,
    explain,
    manual,
    policy,
    provider,
    rates,
    rebuild,
    reconcile,
    report,
    repricing,
    setup,
    silences,
    status,
    traffic,
    up,
    where,
    workers,
)
from app.failures import told_plainly
from app.telemetry import set_up_logging

cli = typer.Typer(
    name="meterline",
    help="Exact usage metering, alerting and enforcement for AI-API relays.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_MACHINE = "One machine, no Docker"
_OPERATE = "Operate"
_WORKERS = "Workers, as production runs them"

cli.command("up", rich_help_panel=_MACHINE)(up.up)
cli.command("demo", rich_help_panel=_MACHINE)(demo.demo)
cli.command("replay", rich_help_panel=_MACHINE)(traffic.replay)
cli.command("verify", rich_help_panel=_OPERATE)(traffic.verify)
cli.command("reconcile", rich_help_panel=_OPERATE)(reconcile.reconcile)
cli.command("rebuild", rich_help_panel=_OPERATE)(rebuild.rebuild)
cli.command("where", rich_help_panel=_OPERATE)(where.where)
cli.command("explain", rich_help_panel=_OPERATE)(explain.explain)
cli.command("status", rich_help_panel=_OPERATE)(status.status)
cli.command("check-config", rich_help_panel=_OPERATE)(setup.check_config)
cli.command("migrate", rich_help_panel=_OPERATE)(setup.migrate)
cli.command("close", rich_help_panel=_OPERATE)(close.close)
cli.command("reopen", rich_help_panel=_OPERATE)(close.reopen)
cli.command("push", rich_help_panel=_OPERATE)(close.push)
cli.command("periods", rich_help_panel=_OPERATE)(close.periods)
cli.command("rerate", rich_help_panel=_OPERATE)(repricing.rerate)
cli.add_typer(setup.topics, name="topics", rich_help_panel=_OPERATE)
cli.add_typer(manual.throttle, name="throttle", rich_help_panel=_OPERATE)
cli.add_typer(manual.budget, name="budget", rich_help_panel=_OPERATE)
cli.add_typer(policy.policy, name="policy", rich_help_panel=_OPERATE)
cli.add_typer(audit.audit, name="audit", rich_help_panel=_OPERATE)
cli.add_typer(silences.silence, name="silence", rich_help_panel=_OPERATE)
cli.add_typer(deliveries.deliveries, name="deliveries", rich_help_panel=_OPERATE)
cli.add_typer(report.report, name="report", rich_help_panel=_OPERATE)
report.report.command("whatif")(repricing.what_if)
cli.add_typer(provider.provider, name="provider", rich_help_panel=_OPERATE)
cli.add_typer(rates.rates, name="rates", rich_help_panel=_OPERATE)
cli.command("streams", rich_help_panel=_WORKERS)(workers.streams)
cli.command("sink", rich_help_panel=_WORKERS)(workers.sink)
alerts.alerts.command("backtest")(backtest.alerts_backtest)
alerts.alerts.command("test")(backtest.alerts_test)
cli.add_typer(alerts.alerts, name="alerts", rich_help_panel=_WORKERS)
cli.command("reports", rich_help_panel=_WORKERS)(workers.reports)
cli.command("notify", rich_help_panel=_WORKERS)(workers.notify)


def main() -> None:
    """Entry point of the console script."""
    set_up_logging("meterline", "error")
    # A command's retries are silent: what counts is whether it answers in the end.
    stamina.instrumentation.set_on_retry_hooks(())
    try:
        with told_plainly():
            cli()
    except typer.Exit as stop:
        sys.exit(stop.exit_code)


if __name__ == "__main__":
    main()
