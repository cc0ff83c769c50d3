"""``dropped``: how many items the logs report as dropped."""

from __future__ import annotations

from typing import Any

__all__ = ["dropped"]


def dropped(logs: list[Any]) -> int:
    """Count the items that were logged as dropped."""
    return sum(entry["items"] for entry in logs if entry["event"] == "items_dropped")
