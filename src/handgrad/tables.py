"""Tables as aligned text, for people."""

import math
from collections.abc import Sequence


def aligned(cells: Sequence[Sequence[str]], width: int | None = None, named: bool = False) -> list[str]:
    """Returns the lines of a table, of which the cells of a column end below one another.

    One that is wider than ``width`` goes on below, columns after columns, and begins with the first column again;
    columns without a title, which have marks, stand in each part.

    Args:
        cells: row by row, titles first.
        width: of the terminal; None: as wide as it is.
        named: whether the cells of the first column begin below one another.
    """
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    marks = [column for column, title in enumerate(cells[0]) if column and not title]

    def drawn(columns: Sequence[int]) -> list[str]:
        shown = sorted({0, *columns, *marks})
        padded = (
            [row[i].ljust(widths[i]) if named and not i else row[i].rjust(widths[i]) for i in shown] for row in cells
        )
        return ["  ".join(line).rstrip() for line in padded]

    lines: list[str] = []
    part: list[int] = []
    for column in [column for column in range(1, len(widths)) if column not in marks]:
        if part and max(map(len, drawn([*part, column]))) > (width or math.inf):
            lines += [*drawn(part), ""]
            part = []
        part.append(column)
    return [*lines, *drawn(part)]
