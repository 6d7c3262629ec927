"""edgenet cards: the symbols on a page, to print and hold before a camera."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgenet.cli import options
from edgenet.cli.terminal import show, show_json, verb


@verb
def cards(
    out: Annotated[Path, typer.Option("-o", "--out", help="A .pdf or .png.")] = Path("symbols.pdf"),
    json: options.Json = False,
) -> None:
    """Write a printable page of the embedded classifier's symbols."""
    from edgenet.symbols.cards import write_cards
    from edgenet.symbols.glyphs import LABELS

    page = write_cards(out)
    if json:
        show_json({"path": page, "symbols": list(LABELS)})
    else:
        show(f"{page}: {len(LABELS)} symbols, A4; print it at 100 %")
