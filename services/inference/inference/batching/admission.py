"""Owns the decision to take work on: predicts when it would be done, and refuses at once what would be late.

It learns `seconds ≈ a + b · tokens` over recent batches (least squares, exponentially forgetting); knows no threads
and no clock.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from inference.batching.jobs import DeadlineExceeded, Overloaded

_BYTES_PER_TOKEN: Final = 4
_PRESSED: Final = 0.25
_USABLE: Final = 0.6  # of the time until a deadline while others are on their way: for what the prediction misses
_FORGET: Final = 0.995  # the weight of a batch halves every 138 batches
_DOUBT: Final = 8  # lists found hopeless in a row, with nothing learnt meanwhile, until one is tried all the same


def estimate(text: str, max_tokens: int) -> int:
    """About how many tokens a text has, of which a model reads at most `max_tokens`; the engine counts them.

    A token is four bytes of English, and a character of Chinese, which has three. What is costlier than its estimate
    makes batches costlier for as many estimated tokens, and that is learnt.
    """
    return min(max_tokens, 2 + len(text.encode(errors="replace")) // _BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Limits:
    """What may wait: how many tokens, and how long the newest of them."""

    max_queue_tokens: int
    max_wait_s: float


class LatencyModel:
    """Seconds of one batch as a line over its tokens."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._tokens = 0.0  # weighted means and (co)variances
        self._seconds = 0.0
        self._variance = 0.0
        self._covariance = 0.0

    def learn(self, tokens: int, seconds: float) -> None:
        """One batch of `tokens` took `seconds`."""
        self._weight = self._weight * _FORGET + 1.0
        share = 1.0 / self._weight
        delta_tokens = tokens - self._tokens
        delta_seconds = seconds - self._seconds
        self._tokens += share * delta_tokens
        self._seconds += share * delta_seconds
        self._variance = (1 - share) * (self._variance + share * delta_tokens * delta_tokens)
        self._covariance = (1 - share) * (self._covariance + share * delta_tokens * delta_seconds)

    @property
    def line(self) -> tuple[float, float]:
        """`(a, b)`, neither below 0; batches of one length alone say only what a token costs."""
        slope = self._covariance / self._variance if self._variance > 1e-9 else self.seconds_per_token
        slope = min(max(slope, 0.0), self.seconds_per_token)
        return self._seconds - slope * self._tokens, slope

    @property
    def seconds_per_token(self) -> float:
        """At the recent mix of batches, fixed cost included."""
        return self._seconds / self._tokens if self._tokens > 0 else 0.0

    def seconds(self, tokens: int) -> float:
        """Of a batch of `tokens`."""
        a, b = self.line
        return a + b * tokens


class Admission:
    """The tokens on their way (waiting or being scored), and what they mean for the next request."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.model = LatencyModel()
        self.workers = 1
        self.tokens = 0
        self._longest_s = 0.0  # that anything was given since nothing was on its way
        self._hopeless = 0

    @property
    def wait_s(self) -> float:
        """Until everything on its way now is done."""
        return self.tokens * self.model.seconds_per_token / max(1, self.workers)

    @property
    def near_capacity(self) -> bool:
        """So much is on its way that refusals are near."""
        return self.wait_s > self._limits.max_wait_s * _PRESSED

    def admit(self, sizes: Sequence[int], remaining_s: float) -> None:
        """Take on texts of `sizes` tokens that must be done in `remaining_s`, all or none.

        Raises Overloaded, and DeadlineExceeded for what would be late whatever else is on its way.
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
        """When `admit` should be asked again, because it would refuse now; None if it would not, infinity for never.

        It is not after the last that waits now must be done or has left. A mistaken prediction can't lock the
        service: with nothing on its way every single text is taken on, and a list at last where lists alone come.
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
        excess = self.tokens + sum(sizes) - self._limits.max_queue_tokens
        if late_s <= 0 and excess <= 0 and wait_s <= self._limits.max_wait_s:
            return None
        excess_s = excess * self.model.seconds_per_token / max(1, self.workers)
        return min(wait_s, self._longest_s, max(late_s, excess_s, wait_s - self._limits.max_wait_s))

    def learn(self, tokens: int, seconds: float) -> None:
        """A batch of about `tokens` took `seconds`."""
        self.model.learn(tokens, seconds)
        self._hopeless = 0

    def release(self, tokens: int) -> None:
        """A text is answered, or nobody wants it any more."""
        self.tokens -= tokens

    def _own_s(self, sizes: Sequence[int]) -> float:
        """The texts of one request in parallel, but never faster than its longest alone."""
        parallel_s = sum(sizes) * self.model.seconds_per_token / max(1, min(self.workers, len(sizes)))
        return max(self.model.seconds(max(sizes)), parallel_s if len(sizes) > 1 else 0.0)
