"""The commands of docs/operations.md, as they are written there."""

import re
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "operations.md"


def blocks(heading: str) -> list[str]:
    """The blocks of code in a section."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\w*\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def line(heading: str, start: str) -> str:
    """The command of a section that begins so, also where it stands in a comment."""
    found = re.search(rf"^(?:# ?)?({re.escape(start)}.*)$", "\n".join(blocks(heading)), re.MULTILINE)
    assert found is not None, f"{heading}: no {start}"
    return found[1]
