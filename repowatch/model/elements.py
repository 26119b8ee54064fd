"""The door to expat: XML that anyone may have written, element by element, each with its line.

A document type may be named, as comps.xml does, but nothing is fetched for it and no entity is declared:
what an entity stands for could grow without end, and libcomps leaves out what it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn
from xml.parsers import expat

from repowatch.errors import BadMetadata

Path = tuple[str, ...]  # the names of the elements from the root on, the last one's own
Start = Callable[[Path, Mapping[str, str], int], None]
End = Callable[[Path, str, int], None]

_DEEPEST = 32  # elements within one another; no file of this kind has ten
_MOST = 8_000_000  # elements: some 12 s; Fedora's updateinfo.xml has half a million
_ENCODINGS = ("utf-8", "us-ascii", "iso-8859-1")  # that ASCII may be put into, of those that expat knows


def walk(content: bytes, *, start: Start, end: End) -> int:
    """Call `start` with path, attributes and line of each element, and `end` with its text before that.

    Returns the offset in bytes of the root's end tag, or behind its only tag. Raises BadMetadata, and what
    the two raise.
    """
    walker = _Walker(start, end)
    if 0 in content[:4]:  # UTF-16, which expat reads without being told
        raise BadMetadata("not UTF-8; save it as UTF-8", line=1)
    try:
        walker.parser.Parse(content, True)
    except expat.ExpatError as error:
        raise BadMetadata(f"not XML: {expat.ErrorString(error.code)}", line=error.lineno) from error
    return walker.end_of_root


class _Walker:
    """What expat calls."""

    def __init__(self, start: Start, end: End) -> None:
        self.parser = parser = expat.ParserCreate()
        self.end_of_root = 0
        self._start = start
        self._end = end
        self._path: Path = ()
        self._count = 0
        self._text: list[str] = []
        parser.buffer_text = True
        parser.StartElementHandler = self._started
        parser.EndElementHandler = self._ended
        parser.CharacterDataHandler = self._text.append
        parser.XmlDeclHandler = self._declared
        parser.EntityDeclHandler = self._refuse_entity
        parser.SkippedEntityHandler = self._refuse_entity

    def _started(self, name: str, attributes: Mapping[str, str]) -> None:
        if len(self._path) == _DEEPEST:
            raise BadMetadata(f"more than {_DEEPEST} elements within one another", line=self._line)
        self._count += 1
        if self._count > _MOST:
            raise BadMetadata(f"more than {_MOST} elements", line=self._line)
        self._path = (*self._path, name)
        self._text.clear()
        self._start(self._path, attributes, self._line)

    def _ended(self, name: str) -> None:
        text = "".join(self._text).strip()
        self._text.clear()
        self._end(self._path, text, self._line)
        self._path = self._path[:-1]
        if not self._path:
            self.end_of_root = self.parser.CurrentByteIndex

    def _declared(self, version: str, encoding: str | None, standalone: int) -> None:
        if (encoding or "utf-8").lower() not in _ENCODINGS:
            raise BadMetadata(f"the encoding {encoding} is not read; save it as UTF-8", line=1)

    def _refuse_entity(self, *_: object) -> NoReturn:
        raise BadMetadata("entities are not allowed; write out what it stands for", line=self._line)

    @property
    def _line(self) -> int:
        return self.parser.CurrentLineNumber
