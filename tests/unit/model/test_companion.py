"""Metadata files beside the packages: what is opened to look at it, and under which names it is published."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable

import pytest
import zstandard

from repowatch.errors import BadMetadata
from repowatch.model.companion import Names, is_ours, make
from repowatch.model.formats import FORMATS

FORM = FORMATS["compatible"]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        ("gz", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lzma.compress),
        ("zst", zstandard.ZstdCompressor().compress),
    ],
)
def test_a_compressed_file_that_ends_too_early_is_refused(
    suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    content = random.Random(7).randbytes(300_000)
    names, whole = Names(metadata={"app": f"app.{suffix}"}), compress(content)
    for each in (whole, whole + compress(b"more")):
        names.read(f"app.{suffix}", each)
    assert make("app", {f"app.{suffix}": whole}, FORM, "sha256")[0].opened[0] == len(content)  # type: ignore[index]
    for cut in (6, 100_000, len(whole) - 1, len(whole) + 8):
        with pytest.raises(BadMetadata, match=f"app.{suffix} is damaged"):
            names.read(f"app.{suffix}", (whole + compress(b"more"))[:cut])


@pytest.mark.parametrize("path", ["a/b.xml.gz", "a", "x.B_c", "x.y z", "x.", "x.ü", "..x", "x.gz.sig-1"])
def test_every_file_has_a_name_that_is_found_again_when_it_is_superseded(path: str) -> None:
    [made] = make("app", {path: gzip.compress(b"x")}, FORM, "sha256")
    assert is_ours(["app"]).fullmatch(made.name)
