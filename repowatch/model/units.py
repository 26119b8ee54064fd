"""Sizes as people read them."""

from __future__ import annotations


def in_units(size: int) -> str:
    """A number of bytes, for people."""
    if size < 1024:
        return f"{size} B"
    amount = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1023.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"
