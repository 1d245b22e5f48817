"""Admission: predicts when a request would be finished, and refuses at once what would be late.

The prediction is the mean time of a token over recent batches. It includes the fixed cost of a batch.
"""

import math
from collections.abc import Sequence
from typing import Final

from inference.batching.jobs import DeadlineExceeded, Overloaded

_BYTES_PER_TOKEN: Final = 4
_MAX_TOKENS: Final = 1 << 20
_NEAR_CAPACITY: Final = 0.25  # of the longest wait
_USABLE: Final = 0.6  # of the time until a deadline: the rest is a margin for errors of the prediction
_FORGET: Final = 0.995  # the weight of a batch halves every 138 batches
_DOUBT: Final = 8  # hopeless lists in a row, with nothing learnt in between, before one is admitted


def estimate(text: str, max_tokens: int) -> int:
    """Return about how many tokens of a text the model scores. The engine counts them exactly.

    A token is about four bytes of English, or one Chinese character of three. Admission learns the cost of an estimated
    token, so it corrects for languages that are underestimated.
    """
    return min(max_tokens, 2 + len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)


class Admission:
    """The tokens waiting or being scored, and the decision about the next request.

    `max_wait_s` is the longest predicted wait, and `max_tokens` bounds the memory of waiting texts.
    """

    def __init__(self, max_wait_s: float, max_tokens: int = _MAX_TOKENS) -> None:
        self._max_wait_s = max_wait_s
        self._max_tokens = max_tokens
        self.workers = 1
        self.tokens = 0
        self.seconds_per_token = 0.0
        self._recent_tokens = 0.0
        self._recent_s = 0.0
        self._longest_s = 0.0  # the longest time allowed to a request since the service was idle
        self._hopeless = 0

    @property
    def wait_s(self) -> float:
        """Predicted seconds until all admitted texts are finished."""
        return self.tokens * self.seconds_per_token / max(1, self.workers)

    @property
    def near_capacity(self) -> bool:
        """The predicted wait is long enough that refusals are near."""
        return self.wait_s > self._max_wait_s * _NEAR_CAPACITY

    def admit(self, sizes: Sequence[int], remaining_s: float) -> None:
        """Admit texts of `sizes` tokens that must be finished in `remaining_s`, all or none.

        Raises Overloaded, and DeadlineExceeded for what would be late even without other requests.
        """
        retry_after_s = self.retry_after_s(sizes, remaining_s)
        if retry_after_s == math.inf:
            self._hopeless += self.tokens == 0
            raise DeadlineExceeded
        if retry_after_s is not None:
            raise Overloaded(retry_after_s)
        self._longest_s = max(remaining_s, self._longest_s if self.tokens else 0.0)
        self.tokens += sum(sizes)

    def retry_after_s(self, sizes: Sequence[int], remaining_s: float) -> float | None:
        """Return the seconds until `admit` would succeed: None if it would now, inf if it never can.

        Never later than the last current deadline. An idle service always admits a single text, and a list after eight
        rejected lists in a row, so a bad estimate cannot lock it up.
        """
        own_s = self._own_s(sizes)
        usable_s = remaining_s * _USABLE if self.tokens else remaining_s
        is_hopeless = own_s > usable_s
        if self.tokens == 0 and (not is_hopeless or len(sizes) == 1 or self._hopeless >= _DOUBT):
            return None
        if is_hopeless:
            return math.inf
        wait_s = self.wait_s
        late_s = wait_s + own_s - usable_s
        excess = self.tokens + sum(sizes) - self._max_tokens
        if late_s <= 0 and excess <= 0 and wait_s <= self._max_wait_s:
            return None
        excess_s = excess * self.seconds_per_token / max(1, self.workers)
        return min(wait_s, self._longest_s, max(late_s, excess_s, wait_s - self._max_wait_s))

    def learn(self, tokens: int, seconds: float) -> None:
        """Record that a batch of about `tokens` took `seconds`."""
        self._recent_tokens = self._recent_tokens * _FORGET + tokens
        self._recent_s = self._recent_s * _FORGET + seconds
        self.seconds_per_token = self._recent_s / self._recent_tokens
        self._hopeless = 0

    def release(self, tokens: int) -> None:
        """Free the tokens of a text that was answered or withdrawn."""
        self.tokens -= tokens

    def _own_s(self, sizes: Sequence[int]) -> float:
        """Seconds for one request: its texts in parallel, at least its longest alone."""
        in_parallel = sum(sizes) / max(1, min(self.workers, len(sizes)))
        return max(in_parallel, *sizes) * self.seconds_per_token
