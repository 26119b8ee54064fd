from __future__ import annotations

from xml.sax import saxutils

from hypothesis import given
from hypothesis import strategies as st

from repowatch.model.markup import escape, quoteattr, unescape

TEXTS = st.text() | st.text(alphabet="&<>\"'\n\r\t ;amplgtquo#x13", max_size=20)


@given(TEXTS)
def test_text_is_escaped_as_the_standard_library_does(text: str) -> None:
    assert escape(text) == saxutils.escape(text)
    assert quoteattr(text) == saxutils.quoteattr(text)
    assert unescape(text) == saxutils.unescape(text, {"&quot;": '"'})


def test_an_attribute_with_both_quotes_has_double_ones_around_it() -> None:
    assert quoteattr("a\"b'c") == '"a&quot;b\'c"'
    assert quoteattr('a"b\tc') == "'a\"b&#9;c'"


@given(TEXTS)
def test_what_was_escaped_comes_back(text: str) -> None:
    assert unescape(escape(text)) == text
