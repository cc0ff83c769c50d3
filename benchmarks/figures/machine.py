"""Describes the machine, interpreter, packages and server of a benchmark."""

from __future__ import annotations

import os
import platform
import sysconfig
from importlib import metadata
from pathlib import Path

__all__ = ["describe_machine", "server_version", "versions"]

OURS = ("reactivex", "redis", "hiredis", "msgspec", "attrs", "uuid-utils")


def describe_machine() -> dict[str, object]:
    """Return cores, processor, load at the start, and how the interpreter was built."""
    made = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "profile guided": "--enable-optimizations" in made,
    }


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of rxdispatch's dependencies, and of *packages*."""
    found: dict[str, str] = {}
    for package in (*OURS, *packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def server_version(info: dict[str, object]) -> str:
    """Return the name and version of a server from its INFO."""
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    if about.exists():
        for line in about.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
