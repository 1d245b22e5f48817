"""Read commands from docs/operations.md."""

import re
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "operations.md"


def blocks(heading: str) -> list[str]:
    """Return the code blocks of a section."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\w*\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def line(heading: str, start: str) -> str:
    """Return the command of a section with this beginning, also from a comment."""
    found = re.search(rf"^(?:# ?)?({re.escape(start)}.*)$", "\n".join(blocks(heading)), re.MULTILINE)
    assert found is not None, f"{heading}: no {start}"
    return found[1]
