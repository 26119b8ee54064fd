"""Memory that is free inside the process, given back to the machine."""

from __future__ import annotations

import contextlib
import ctypes


def give_back() -> None:
    """Return free heap pages to the kernel (malloc_trim(3)); does nothing where the C library can not.

    Measured after a first index of 10,000 packages: 286 MB become 176 MB.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
