"""``rxdispatch nodes``: shows a fleet, or simulates one."""

from __future__ import annotations

from typing import Any, Final

import click

from rxdispatch.cli.exits import exit_codes
from rxdispatch.cli.nodes.fleet_view import SORTS, Sort
from rxdispatch.cli.nodes.simulate import Simulation, simulate
from rxdispatch.cli.nodes.watch import watch
from rxdispatch.cli.url_option import url_option

__all__ = ["nodes"]

_NAMESPACE: Final = click.option(
    "--namespace",
    default="rxd",
    show_default=True,
    metavar="NAME",
    help="Prefix of the fleet's keys.",
)


@click.group()
def nodes() -> None:
    """Watch a fleet of nodes, or simulate one."""


@nodes.command("watch")
@url_option("Server with the fleet: redis://, rediss:// or unix://")
@_NAMESPACE
@click.option("--pool", metavar="NAME", help="Show only the nodes of this pool.")
@click.option("--once", is_flag=True, help="Print the current fleet and exit.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON: with --once one document; otherwise a line for each node, a line of the kind"
    " synced, and then a line for each change.",
)
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="id",
    show_default=True,
    help="Order of the nodes: by id; by pool; fullest first (jobs); suspect first (status); highest"
    " version first (version); longest silent first (heartbeat).",
)
def watch_nodes(
    url: str | None, namespace: str, pool: str | None, once: bool, as_json: bool, sort: Sort
) -> None:
    """
    Show the nodes of a fleet, live, until Ctrl-C.

    The server pushes changes, and the display follows them. If the output is a file or a pipe, it
    gets a summary line after changes, at most every two seconds.
    """
    with exit_codes():
        watch(url=url, namespace=namespace, pool=pool, once=once, json=as_json, sort=sort)


@nodes.command("simulate")
@url_option(
    "Server to register the nodes on",
    "$RXDISPATCH_URL, else an embedded server, whose URL is printed",
)
@_NAMESPACE
@click.option("--nodes", type=int, default=1000, show_default=True, metavar="N")
@click.option(
    "--churn",
    type=float,
    default=0.01,
    show_default=True,
    metavar="SHARE",
    help="Share of the nodes that die silently, are drained or are removed in each second.",
)
@click.option(
    "--ttl",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Time without a heartbeat after which a node is removed.",
)
@click.option(
    "--interval",
    type=float,
    metavar="SECONDS",
    help="Time between the heartbeats of a node.  [default: a third of the ttl]",
)
@click.option(
    "--pools",
    default="cpu,gpu,io",
    show_default=True,
    metavar="NAMES",
    help="Names of the pools, separated by commas.",
)
@click.option(
    "--capacity", type=int, default=8, show_default=True, metavar="N", help="Capacity of each node."
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    help="Seed of all random choices; the same seed gives the same events.",
)
@click.option(
    "--duration",
    type=float,
    metavar="SECONDS",
    help="Stop after this time.  [default: run until Ctrl-C]",
)
def simulate_nodes(url: str | None, **asked: Any) -> None:
    """
    Keep a fleet of simulated nodes alive, for demos and experiments.

    Nodes come, report their load with every heartbeat, die, are drained and leave. Ctrl-C removes
    them; a second Ctrl-C aborts. Other users of the same fleet see these nodes too: on a shared
    server, give the simulation a namespace of its own.
    """
    with exit_codes():
        simulate(url, Simulation(**asked))
