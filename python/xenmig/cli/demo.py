# SPDX-License-Identifier: GPL-3.0-or-later
"""``xenmig demo``: a whole live migration on one machine, without Xen.

Turns the options into a plan, which :mod:`xenmig.cli.migration` carries out, and prints the report or the
error.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from xenmig._native import PAGE_SIZE
from xenmig.cli.json_output import prints_to_stderr
from xenmig.cli.migration import FAILED, WRONG_OPTION, DemoError, Plan, migrate
from xenmig.cli.progress import progress_view
from xenmig.cli.receiver import Transport
from xenmig.cli.workload_option import DEFAULT_RATE, WorkloadName, make_workload
from xenmig.errors import SimError
from xenmig.policies.named import BUILT_IN, PolicyNameError, load_policy
from xenmig.progress_text import format_bytes
from xenmig.sim import MIN_MEMORY_BYTES, memory_bytes
from xenmig.stream.output import write_error, write_json

if TYPE_CHECKING:
    from xenmig.policy import Policy

__all__ = ["demo"]

DEFAULT_MEMORY = "256M"
DEFAULT_POLICY = "downtime:ms=60 | stop-after:rounds=30"
DEFAULT_MAP_COST_US = 20.0
"""Makes the link about as fast as 1.6 Gbit/s, slow enough to watch the precopy at work."""

_PIPE_COLUMNS = 110
_POLICY_HELP = (
    f"What decides: {', '.join(BUILT_IN)}, with arguments as in downtime:ms=300; module:Class; file.py:name, "
    'or "a|b.py":name if the file\'s name contains | or &; several combined with | and &; or none, for '
    "libxc's rule built into the engine."
)


class ConsultMode(Enum):
    """When the policy is asked."""

    ROUND = "round"
    BATCH = "batch"


def demo(  # noqa: PLR0913 - one for each option
    *,
    memory: Annotated[
        str | None,
        typer.Option(help=f"The guest's RAM, such as 2G. Default: {DEFAULT_MEMORY}, or the image's size."),
    ] = None,
    workload: Annotated[WorkloadName, typer.Option(help="What the guest writes.")] = WorkloadName.HOTCOLD,
    rate: Annotated[
        float, typer.Option(min=0, help="Pages written per second; for hotcold, hot ones.")
    ] = DEFAULT_RATE,
    vcpus: Annotated[int, typer.Option(min=1, max=64, help="The guest's vCPUs.")] = 2,
    image: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="Fill RAM with this file's bytes."),
    ] = None,
    map_cost_us: Annotated[
        float,
        typer.Option(min=0, max=1e6, help="Microseconds that mapping a page takes, as on a slow host."),
    ] = DEFAULT_MAP_COST_US,
    transport: Annotated[Transport, typer.Option(help="How the stream gets across.")] = Transport.UNIX,
    policy: Annotated[str, typer.Option(help=_POLICY_HELP)] = DEFAULT_POLICY,
    policy_arg: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An argument for the policy's class.")
    ] = None,
    consult: Annotated[
        ConsultMode | None,
        typer.Option(help="When the policy is asked. Default: batch; with the policy none, round."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object and nothing else; what a policy prints goes to stderr."
        ),
    ] = False,
) -> None:
    """Migrate a simulated guest live to a second process, and compare the memory.

    Exit status: 0 if the memory is identical; 1 if it is not, or something failed; 2 for wrong options; 3 if
    the policy aborted; 130 after Ctrl-C.
    """
    try:
        with prints_to_stderr(wanted=as_json):
            size = _memory_bytes(memory, image)
            who = _policy(policy, policy_arg or [])
            when = consult or (ConsultMode.ROUND if who is None else ConsultMode.BATCH)
            settings = {
                "memory_bytes": size,
                "vcpus": vcpus,
                "workload": workload.value,
                "rate_pages_per_s": rate,
                "image": None if image is None else str(image),
                "map_cost_us": map_cost_us,
                "transport": transport.value,
                "policy": policy,
                "consult": when.value,
            }
            what = make_workload(workload, rate, size // PAGE_SIZE)
            plan = Plan(
                size, vcpus, what, image, round(map_cost_us * 1000), transport, who, when.value, settings
            )
            if not as_json:
                _console().print(_introduction(plan))
            with progress_view(_console(stderr=True)) as view:
                report = migrate(plan, view)
    except DemoError as error:
        if as_json:
            write_json({"error": str(error), **error.details})
        write_error(str(error))
        raise typer.Exit(error.status) from None
    if as_json:
        write_json(report.as_dict())
    else:
        report.print(_console())
    if not report.memory_identical:
        raise typer.Exit(FAILED)


def _memory_bytes(memory: str | None, image: Path | None) -> int:
    """Returns the guest's RAM: as asked for, or whole MiB that hold the image, or the default."""
    if image is not None and not image.is_file():
        raise DemoError(f"--image: {image} is not an ordinary file", WRONG_OPTION)
    if memory is None and image is not None:
        mib = max(-(-image.stat().st_size >> 20), MIN_MEMORY_BYTES >> 20)
        memory = f"{mib}M"
    try:
        return memory_bytes(memory or DEFAULT_MEMORY)
    except SimError as error:
        raise DemoError(f"--memory: {error}", WRONG_OPTION) from error


def _policy(policy: str, arguments: list[str]) -> Policy | None:
    if policy.strip() == "none":
        return None
    try:
        return load_policy(policy, arguments)
    except PolicyNameError as error:
        raise DemoError(f"--policy: {error}", WRONG_OPTION) from error


def _introduction(plan: Plan) -> str:
    size = format_bytes(plan.memory_bytes)
    filled = "" if plan.image is None else f" filled with {plan.image.name},"
    said = plan.settings
    cost = f"; a page costs {said['map_cost_us']:g} µs to map" if plan.map_cost_ns else ""
    guest = f"a guest of {size},{filled} {plan.vcpus} vCPUs, workload {said['workload']}"
    return f"{guest}, over {said['transport']} to a second process{cost}"


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    return console
