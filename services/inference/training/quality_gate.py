"""The decision whether an int8 model may replace its fp32 original, on labelled rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.engines.base import softmax

MAX_ACCURACY_LOSS = 0.005
MIN_AGREEMENT = 0.98
MIN_CONFIDENT_AGREEMENT = 0.995
CONFIDENT = 0.9

Logits = Sequence[float]


class GateRefused(Exception):
    """The candidate may not replace its reference. The message holds every reason."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text; `label` is the index of the right label."""

    label: int
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate compared with its reference. All but `rows` are shares between 0 and 1."""

    rows: int
    reference_accuracy: float
    accuracy: float
    agreement: float
    confident_agreement: float

    def failures(self) -> list[str]:
        """Return every reason to refuse the candidate."""
        loss = round(self.reference_accuracy - self.accuracy, 6)  # 0.9 - 0.895 exceeds 0.005 in its last bit
        found = {
            f"accuracy falls by {loss:.2%}, more than {MAX_ACCURACY_LOSS:.2%}": loss > MAX_ACCURACY_LOSS,
            f"labels agree on {self.agreement:.2%}, less than {MIN_AGREEMENT:.2%}": self.agreement < MIN_AGREEMENT,
            f"labels agree on {self.confident_agreement:.2%} of the texts where fp32 is confident, "
            f"less than {MIN_CONFIDENT_AGREEMENT:.2%}": self.confident_agreement < MIN_CONFIDENT_AGREEMENT,
        }
        return [words for words, failed in found.items() if failed]


def require(comparison: Comparison) -> None:
    """Raise GateRefused for a candidate that fails any threshold."""
    if failures := comparison.failures():
        raise GateRefused("; ".join(failures))


def read_rows(files: Iterable[Path], labels: int) -> list[Row]:
    """Return every `label<TAB>text` line. Raises ValueError that names the first malformed line, or the file."""
    rows = []
    for file in files:
        try:
            read = file.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with U+FEFF
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: expected UTF-8: {error}") from error
        lines = read.removesuffix("\n").split("\n")  # texts hold what splitlines() ends at
        for number, line in enumerate(lines, start=1):
            label, tab, text = line.partition("\t")
            if not (tab and text and label.isdecimal() and int(label) < labels):
                raise ValueError(f"{file}:{number}: expected a label below {labels}, a tab and a text")
            rows.append(Row(int(label), text))
    return rows


def compare(rows: Sequence[Row], reference: Sequence[Logits], candidate: Sequence[Logits]) -> Comparison:
    if not rows:
        raise ValueError("no rows to compare on")
    pairs = list(zip(map(_label, reference), map(_label, candidate), strict=True))
    sure = [pair for pair, logits in zip(pairs, reference, strict=True) if max(softmax(logits)) >= CONFIDENT]
    return Comparison(
        rows=len(rows),
        reference_accuracy=_share(pair[0] == row.label for pair, row in zip(pairs, rows, strict=True)),
        accuracy=_share(pair[1] == row.label for pair, row in zip(pairs, rows, strict=True)),
        agreement=_share(left == right for left, right in pairs),
        confident_agreement=_share(left == right for left, right in sure),
    )


def _label(logits: Logits) -> int:
    return max(range(len(logits)), key=logits.__getitem__)


def _share(claims: Iterable[bool]) -> float:
    """Return the share that is true, 1 for no claims."""
    found = list(claims)
    return sum(found) / len(found) if found else 1.0
