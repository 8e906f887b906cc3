"""`meterline demo`: the whole pipeline, two relays under load, and the story of one budget."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from meterline.app.clock import now_ms
from meterline.app.commands.status import departments_table
from meterline.app.commands.up import Kafka, KafkaChoice, sample_policy
from meterline.app.local.demo.feed import Feed
from meterline.app.local.demo.month_end import ORGANISATION as HERO_ORGANISATION
from meterline.app.local.demo.month_end import (
    bill_table,
    close_last_month,
    keep_closed,
    last_month,
    send_last_month,
)
from meterline.app.local.demo.proof import Proof, prove
from meterline.app.local.demo.story import Seen, Story, departments_line, spend_line
from meterline.app.local.stack import Stack, StackOptions
from meterline.app.settings import base_environment
from meterline.app.telemetry import set_up_logging
from meterline.app.wiring import kafka_config, pipeline, stop_on_signals
from meterline.control.store import publish
from meterline.operations.policy import planned_by_file
from meterline.operations.status import gather
from meterline.schemas.money import usd_display

_out = Console(highlight=False, soft_wrap=True)
HERO = "research"
"""The department whose budget the sample policy keeps short."""
RELAYS = ("relay-1", "relay-2")
REQUESTS_PER_SECOND = 80.0
SEED = 7
# Bounds of the acts; each ends as soon as what it waits for has happened.
READY_SECONDS = 40
CROSSING_SECONDS = 150
RECOVERY_SECONDS = 40
LOOK_SECONDS = 5.0
PROOF_SECONDS = 40
RAISED_BUDGET_USD = "60"
SHOWN_FILES = (
    ("summary.html              ", "charts by department and day"),
    ("bill.xlsx                 ", "the same as a workbook, with charts"),
    ("journal-netsuite.csv      ", "balanced; also for SAP and Workday"),
    ("focus-cost-and-usage.csv  ", "FOCUS 1.4"),
)
_SAMPLE_QUERY = "SELECT department, count(), sum(cost_usd) FROM usage_events FINAL GROUP BY ALL"


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Keep the data in this directory; default: keep only the closed month."
        ),
    ] = None,
    kafka: Kafka = KafkaChoice.EMBEDDED,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="Stop at the end instead of serving until Ctrl-C.")
    ] = False,
) -> None:
    """Run the scripted end-to-end demo: traffic, breaker, refusal, recovery, proof, close."""
    set_up_logging("demo", "warning")
    stop = stop_on_signals()
    with _directory(data) as folder:
        log = (folder / "demo.log").open("w", encoding="utf-8")
        options = StackOptions(folder / "data", kafka=kafka.value, policy=sample_policy())
        stack = Stack(options, log, lambda line: _out.print(f"[dim]        {line}[/]"))
        try:
            _play(stack, folder, stop, keep=data is None)
            if not once and not stop.is_set():
                _keep_serving(stack, stop)
        finally:
            stack.stop()
            log.close()
    _out.print("[dim]stopped[/]")


@contextlib.contextmanager
def _directory(data: Path | None) -> Iterator[Path]:
    if data is not None:
        data.mkdir(parents=True, exist_ok=True)
        yield data
        return
    folder = Path(tempfile.mkdtemp(prefix="meterline-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _play(stack: Stack, folder: Path, stop: threading.Event, *, keep: bool) -> None:
    _out.print(Rule("Meterline: one budget, from the first request to the proof", align="left"))
    stack.start()
    _out.print(_processes(stack))
    feed = Feed(kafka_config(stack.settings, "demo"))
    story = Story(feed, lambda when, head, text: _out.print(f"[dim]{when}[/] {head} {text}"))
    try:
        feed.start()
        _traffic(stack, story, feed)
        _crossing(story)
        _recovery(stack, story, folder)
        if not stop.is_set():
            _proof(stack, story, feed)
            _month_end(stack, story, keep=keep)
    finally:
        feed.close()


def _processes(stack: Stack) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for state in stack.states():
        memory = "" if state.rss_bytes is None else f"{state.rss_bytes // 1_000_000} MB"
        table.add_row(f"        [green]✓[/] {state.name}", f"pid {state.pid}", memory)
    return table


def _traffic(stack: Stack, story: Story, feed: Feed) -> None:
    arguments = [
        *("--seed", str(SEED), "--per-second", str(REQUESTS_PER_SECOND)),
        *("--run-id", f"demo{now_ms():x}"),
    ]
    environment = {**base_environment(), "METERLINE_DATA_DIR": str(stack.options.data_dir)}
    for name in RELAYS:
        feed.start_relay(name, arguments, environment)
    story.until(lambda seen: seen.ready >= set(RELAYS), "both relays to start", READY_SECONDS)
    story.restart_clock()
    story.line(
        "cyan",
        "TRAFFIC",
        f"{len(RELAYS)} relays, {REQUESTS_PER_SECOND * len(RELAYS):.0f} requests per second of "
        f"8 departments, 200 keys, 4 models; every request passes the relay's gate",
    )


def _crossing(story: Story) -> None:
    def refused_everywhere(seen: Seen) -> bool:
        return seen.refusing.get(HERO, set()) >= set(RELAYS)

    story.until(refused_everywhere, f"the gates to refuse {HERO}", CROSSING_SECONDS)
    body = story.seen.refusal.get("body", "")
    _out.print(f"[dim]        the answer a caller gets: {body}[/]", markup=True)
    story.during(1.5)  # let tallies from before the refusal come in
    admitted, refused = story.seen.totals()
    story.during(LOOK_SECONDS)
    admitted_then, refused_then = story.seen.totals()
    story.line(
        "bold",
        "ISOLATION",
        departments_line(admitted_then - admitted, refused_then - refused, HERO)
        + f" (in {LOOK_SECONDS:.0f} s)",
    )


def _recovery(stack: Stack, story: Story, folder: Path) -> None:
    raised = folder / "raised.yaml"
    raised.write_text(_raised_policy(), encoding="utf-8")
    changes = planned_by_file(pipeline(stack.settings), raised)
    story.line("cyan", "POLICY", f"{HERO}'s budget is raised: {changes[0]}")
    publish(
        kafka_config(stack.settings, "demo"),
        changes,
        actor="demo",
        reason="more budget for the experiment",
        at_ms=now_ms(),
    )
    story.until(
        lambda seen: not seen.refusing.get(HERO) and seen.resolved > 0,
        f"the gates to admit {HERO} again",
        RECOVERY_SECONDS,
    )
    story.during(LOOK_SECONDS)


def _raised_policy() -> str:
    document = yaml.safe_load(sample_policy().read_text(encoding="utf-8"))
    for department in document["organisations"][0]["departments"]:
        if department["id"] == HERO:
            department["budget"]["month_usd"] = RAISED_BUDGET_USD
    text: str = yaml.safe_dump(document, sort_keys=False)
    return text


def _proof(stack: Stack, story: Story, feed: Feed) -> None:
    feed.stop_relays()
    story.until(lambda seen: seen.done.keys() >= set(RELAYS), "the relays' last words", 10)
    sent = [story.seen.done[name] for name in RELAYS]
    events = sum(one["events"] for one in sent)
    cost = sum(one["cost_nano_usd"] for one in sent)
    story.line("cyan", "STOPPED", f"the relays sent {spend_line(events, cost)}")
    proof = prove(stack.settings, events, cost, PROOF_SECONDS)
    _print_proof(story, proof)
    _out.print(departments_table(gather(pipeline(stack.settings), (), now_ms())))
    if not proof.equal:
        raise typer.Exit(1)


def _print_proof(story: Story, proof: Proof) -> None:
    story.line("cyan", "COUNTED", f"streams     {spend_line(*proof.streams)}")
    story.line("cyan", "COUNTED", f"ClickHouse  {spend_line(*proof.clickhouse)}")
    if proof.equal:
        story.line("bold green", "EXACT", "three counts, no difference: not one nano-dollar")
    else:
        story.line("bold red", "DIFFERENT", f"by {usd_display(proof.difference_nano_usd, 9)}")


def _month_end(stack: Stack, story: Story, *, keep: bool) -> None:
    """Close last month, show its bill, and say where its files are."""
    month = last_month(stack.settings)
    sent = send_last_month(stack.settings, month, SEED)
    story.line("cyan", "LATE", f"{sent:,} events of {month.name} arrive, as after an outage")
    result = close_last_month(stack.settings, month)
    story.line(
        "bold green",
        "CLOSED",
        f"{month.name}, revision {result.revision}: manifest {result.manifest_sha256[:12]}",
    )
    assert result.directory is not None
    directory = keep_closed(result.directory) if keep else result.directory
    _out.print(bill_table(directory))
    _out.print(f"        {len(list(directory.rglob('*.*')))} files in {directory}; look at")
    for name, what in SHOWN_FILES:
        _out.print(f"          {HERO_ORGANISATION}/{name}[dim]{what}[/]")


def _keep_serving(stack: Stack, stop: threading.Event) -> None:
    settings = stack.settings
    program = Path(sys.argv[0]).name
    server = f"http://{settings.clickhouse.host}:{settings.clickhouse.port}/"
    _out.print(Rule(align="left"))
    _out.print("The pipeline runs until Ctrl-C. Try, in another terminal:")
    _out.print(f"  {program} status --data {settings.data_dir}")
    _out.print(f"  {program} replay --format synthetic --speed 60 --data {settings.data_dir}")
    _out.print(f"  curl '{server}' --data '{_SAMPLE_QUERY}'")
    stop.wait()
