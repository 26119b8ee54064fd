"""A plot as SVG: lines over two logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 210, 20, 48
COLOURS = ("#888888", "#1f77b4", "#0b3d91", "#d62728", "#ff7f0e", "#2ca02c")

Points = Sequence[tuple[float, float]]


def svg(lines: Mapping[str, Points], *, across: str, up: str) -> str:
    """The plot of named lines; `across` and `up` say what the axes are."""
    horizontal = _Axis([x for points in lines.values() for x, _ in points], LEFT, WIDTH - RIGHT)
    vertical = _Axis([y for points in lines.values() for _, y in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for value in horizontal.decades():
        x = horizontal.place(value)
        parts.append(_line(x, TOP, x, HEIGHT - BOTTOM))
        parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{value:,.10g}", anchor="middle"))
    for value in vertical.decades():
        y = vertical.place(value)
        parts.append(_line(LEFT, y, WIDTH - RIGHT, y))
        parts.append(_text(LEFT - 6, y + 4, f"{value:g}", anchor="end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across, anchor="middle"))
    parts.append(_text(8, 14, up))
    ends = _apart([vertical.place(points[-1][1]) for points in lines.values()])
    for (name, points), colour, label_at in zip(lines.items(), COLOURS, ends, strict=False):
        path = " ".join(f"{horizontal.place(x):.1f},{vertical.place(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{horizontal.place(x):.1f}" cy="{vertical.place(y):.1f}" r="3" fill="{colour}"/>'
            for x, y in points
        ]
        parts.append(_text(WIDTH - RIGHT + 10, label_at + 4, name, colour=colour))
    return "\n".join([*parts, "</svg>\n"])


class _Axis:
    """A logarithmic axis from one power of ten to another."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(self._low + 1, math.ceil(math.log10(max(values))))
        self._start, self._end = start, end

    def place(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def decades(self) -> list[float]:
        return [10.0**power for power in range(self._low, self._high + 1)]


def _apart(places: Sequence[float]) -> list[float]:
    """Places for labels of 14 units of height, as near to the wanted ones as they do not touch."""
    result = list(places)
    last = -math.inf
    for index in sorted(range(len(places)), key=lambda each: places[each]):
        last = result[index] = max(places[index], last + 14)
    return result


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#333333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
