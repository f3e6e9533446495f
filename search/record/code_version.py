"""Which code runs? The package's version and, in a checkout, its commit."""

from __future__ import annotations

import importlib.metadata
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def package_version() -> str | None:
    """Version of the installed package; None where it is not installed."""
    try:
        return importlib.metadata.version("isoflop")
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def commit() -> str | None:
    """Commit of the checkout, ``+`` where files differ from it; None outside a checkout."""
    if not (ROOT / ".git").exists():
        return None
    describe = ["describe", "--always", "--exclude=*", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *describe], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def code_version() -> str:
    """Version, then commit where there is one."""
    return f"{package_version() or 'unknown'} {commit() or ''}".rstrip()
