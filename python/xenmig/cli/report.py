# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's report: tables for people, one JSON object for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from xenmig.progress_text import format_bytes

if TYPE_CHECKING:
    from rich.console import Console

    from xenmig import RoundStats, SaveResult

__all__ = ["Report"]

_SHOWN_PASSES = 12
"""At most this many rounds are listed: the first and the last ones."""

_NAMES = {"stop_and_copy": "final", "verify": "verify"}


@dataclass(frozen=True)
class Report:
    """One migration, from both sides.

    Attributes:
        settings: The options, as the JSON object shows them.
        saved: The sender's result.
        received: The receiver's answer.
        fingerprint: The guest's fingerprint while suspended, after the save.
    """

    settings: dict[str, Any]
    saved: SaveResult
    received: dict[str, Any]
    fingerprint: str

    @property
    def memory_identical(self) -> bool:
        """Whether the receiver has exactly what the guest had when it was suspended."""
        return bool(self.fingerprint == self.received["fingerprint"])

    def as_dict(self) -> dict[str, Any]:
        """Returns everything in JSON's types."""
        return {
            "memory_identical": self.memory_identical,
            **self.saved.to_dict(),
            **self.settings,
            "fingerprint": self.fingerprint,
            "received": self.received,
        }

    def print(self, console: Console) -> None:
        """Prints the rounds and the summary."""
        console.print(self._rounds())
        console.print()
        console.print(self._summary())

    def _rounds(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for heading in ("round", "claimed", "sent", "skipped", "deferred", "data", "time", "rate"):
            table.add_column(heading, justify="left" if heading == "round" else "right")
        passes = self.saved.passes
        left_out = max(len(passes) - _SHOWN_PASSES, 0)
        first = passes if not left_out else passes[: _SHOWN_PASSES // 2]
        last = passes[len(first) + left_out :]
        for one in first:
            table.add_row(*_cells(one))
        if left_out:
            table.add_row(f"... {left_out} more")
        for one in last:
            table.add_row(*_cells(one))
        return table

    def _summary(self) -> Table:
        saved = self.saved
        parts = {
            "suspend": saved.suspend_ms,
            "last CLEAN": saved.final_clean_ms,
            "pages": saved.final_pages_ms,
            "state": saved.final_state_ms,
        }
        stopped = (saved.decision or "not asked") + (f": {saved.reason}" if saved.reason else "")
        rows = {
            "total": f"{saved.rounds} rounds, {saved.pages_sent:,} pages, {format_bytes(saved.bytes_sent)} "
            f"in {saved.elapsed_s:.2f} s",
            "downtime": f"{saved.downtime_ms:.1f} ms = "
            + " + ".join(f"{name} {ms:.1f}" for name, ms in parts.items()),
            "policy": f"{self.settings['policy']}, asked {saved.consults:,} times",
            "decision": stopped,
            "memory": f"identical ({self.fingerprint})"
            if self.memory_identical
            else f"DIFFERENT: {self.fingerprint} was saved, {self.received['fingerprint']} restored",
        }
        if saved.warnings:
            rows["warnings"] = "; ".join(saved.warnings)
        table = Table.grid(padding=(0, 2, 0, 0))
        for name, value in rows.items():
            style = ("green" if self.memory_identical else "bold red") if name == "memory" else ""
            table.add_row(Text(name, style="bold"), Text(value, style=style))
        return table


def _cells(one: RoundStats) -> list[str]:
    rate = one.bytes_sent / one.elapsed_s if one.elapsed_s else 0.0
    return [
        _NAMES.get(one.phase, str(one.iteration)),
        f"{one.pages_claimed:,}",
        f"{one.pages_sent:,}",
        f"{one.pages_skipped:,}",
        f"{one.pages_deferred:,}",
        format_bytes(one.bytes_sent),
        f"{one.elapsed_s * 1000:,.1f} ms",
        f"{format_bytes(rate)}/s",
    ]
