"""The record of a deployment's responses: one JSON line per request, written by Locust and read by the checks.

For every 429 it has whether it was the promised problem document. It contains no texts.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TextIO

QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. `units` is the cost of the request; times are Unix seconds on the generator's clock.

    `status` is 0 if the connection failed. `cache` is the X-Cache header. `refused_well` is false for a 429 that was
    not a problem document.
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
    """A log file in `folder`, one per process."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = (folder / f"{name}.jsonl").open("w", encoding="utf-8", buffering=1 << 20)

    def write(self, answer: Answer) -> None:
        self._file.write(json.dumps(asdict(answer)) + "\n")

    def close(self) -> None:
        self._file.close()


def read(folder: Path) -> Iterator[Answer]:
    """Return the responses of all processes."""
    for file in sorted(folder.glob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            yield from _parsed(lines)


def is_promised_refusal(headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether a 429 is a problem document with Retry-After."""
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
