"""Text as XML has it: what `xml.sax.saxutils` does, which loads an HTTP client for its other functions."""

from __future__ import annotations

_BLANKS = {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}  # that attributes would lose


def escape(text: str) -> str:
    """As it stands between tags."""
    return text.replace("&", "&amp;").replace(">", "&gt;").replace("<", "&lt;")


def quoteattr(text: str) -> str:
    """As the value of an attribute, with its quotes: single ones where it has double ones alone."""
    escaped = escape(text)
    for blank, reference in _BLANKS.items():
        escaped = escaped.replace(blank, reference)
    if '"' in escaped and "'" not in escaped:
        return f"'{escaped}'"
    return '"{}"'.format(escaped.replace('"', "&quot;"))


def unescape(text: str) -> str:
    """What `escape`, and `&quot;`, stand for."""
    for reference, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        text = text.replace(reference, character)
    return text
