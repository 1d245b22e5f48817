"""Owns the record of what a deployment answered: one JSON line a request, written by Locust, read by the judge.

Of every 429 it says whether it was the problem document that is promised; it keeps no texts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TextIO

QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"


@dataclass(frozen=True, slots=True)
class Answer:
    """`units` is what the request costs at the limit; times are Unix seconds on the generator's clock.

    `status` is 0 when the connection failed. `cache` is the answer's X-Cache. `refused_well` is false for a refusal
    that was not a problem document.
    """

    user: str
    policy: str
    address: str
    units: int
    sent_s: float
    received_s: float
    status: int
    request_id: str
    cache: str = ""
    refused_well: bool = True


class AnswerLog:
    """A file of one process in `folder`; workers of a distributed run don't share it."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = (folder / f"{name}.jsonl").open("w", encoding="utf-8", buffering=1 << 20)

    def write(self, answer: Answer) -> None:
        self._file.write(json.dumps(asdict(answer)) + "\n")

    def close(self) -> None:
        self._file.close()


def read(folder: Path) -> Iterator[Answer]:
    """All answers of all processes."""
    for file in sorted(folder.glob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            yield from _parsed(lines)


def is_promised_refusal(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a 429 is a problem document that says when to come back."""
    try:
        document = json.loads(body)
        waits_s = int(headers.get("Retry-After", ""))
    except ValueError:
        return False
    is_problem = headers.get("Content-Type", "").partition(";")[0] == "application/problem+json"
    return is_problem and waits_s >= 1 and (document.get("type"), document.get("status")) == (QUOTA_EXCEEDED, 429)


def _parsed(lines: Iterable[str]) -> Iterator[Answer]:
    for line in lines:
        yield Answer(**json.loads(line))
