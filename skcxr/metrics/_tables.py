"""Tables of figures with intervals, for a terminal and for a page."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

__all__ = ["WIDTH", "Table", "figure_text"]

WIDTH = 100


@dataclass(frozen=True)
class Table:
    """A title, a header and rows of text; the first column is a name."""

    title: str
    header: list[str]
    rows: list[list[str]]

    def text(self) -> str:
        """Aligned columns; those that do not fit beside each other go below, names repeated."""
        columns = list(zip(self.header, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        parts: list[list[int]] = [[0]]
        for k in range(1, len(columns)):
            if len(parts[-1]) > 1 and sum(widths[i] + 2 for i in parts[-1]) + widths[k] > WIDTH:
                parts.append([0])
            parts[-1].append(k)
        blocks = []
        for part in parts:
            lines = []
            for line in (self.header, *self.rows):
                cells = [line[0].ljust(widths[0]), *(line[k].rjust(widths[k]) for k in part[1:])]
                lines.append("  ".join(cells).rstrip())
            blocks.append("\n".join(lines))
        return "\n\n".join([self.title, *blocks] if self.title else blocks)

    def html(self) -> str:
        """One HTML table."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.header)
        body = "".join(
            "<tr><th>" + escape(row[0]) + "</th>"
            + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
            for row in self.rows
        )  # fmt: skip
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def figure_text(value: float, low: float, high: float) -> str:
    """A figure and its interval: "0.893 (0.849 to 0.930)"."""
    if value != value:
        return "-"
    if low != low:
        return f"{value:.3f} (no interval)"
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
