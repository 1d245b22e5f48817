"""Sends queued notifications to the webhook, with retries for up to a day."""

import asyncio
import hmac
from collections.abc import Callable
from typing import Final, NoReturn
from urllib.parse import urlsplit

import aiohttp
import structlog

from metrics.alerting.outbox import Outbox, PendingNotification
from metrics.alerting.webhook_payload import alertmanager_request
from metrics.errors import StoreUnavailable
from metrics.metrics import AlertMetrics
from metrics.ranges import SECOND

log = structlog.get_logger()

KEEP_S: Final = 86_400.0
SIGNATURE: Final = "X-Sluice-Signature"
ALERTMANAGER_PATH: Final = "/api/v2/alerts"
_POLL_S: Final = 1.0
_BACKOFF_MAX_S: Final = 60.0
_DOUBLINGS: Final = 6  # enough for the longest delay; 2.0 ** 1000 overflows after a day of failures


class Notifier:
    """Runs in every replica. The outbox leases each notification to one of them at a time."""

    def __init__(
        self,
        outbox: Outbox,
        session: aiohttp.ClientSession,
        metrics: AlertMetrics,
        *,
        url: str,
        token: str,
        signing_key: str,
        timeout_s: float,
        now: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._session = session
        self._metrics = metrics
        self._url = url
        self._token = token
        self._signing_key = signing_key.encode()
        self._is_alertmanager = urlsplit(url).path.endswith(ALERTMANAGER_PATH)
        self._timeout_s = timeout_s
        self._now = now
        self._is_refused = False

    async def watch(self) -> NoReturn:
        """Send due notifications every second. Errors are logged and do not end it."""
        while True:
            try:
                await self.send_due()
            except StoreUnavailable as error:
                log.debug("outbox not readable", reason=str(error))  # the evaluator logs a warning
            except Exception:
                log.exception("notifications not sent")
            await asyncio.sleep(_POLL_S)

    async def send_due(self) -> int:
        """Try each due notification once. Returns how many were delivered.

        Notifications that become due meanwhile wait for the next round. Otherwise, with a receiver
        that hangs, the first would be due again before the last was tried.
        """
        taken = 0
        if given_up := await self._outbox.give_up(int((self._now() - KEEP_S) * SECOND)):
            self._metrics.given_up.inc(given_up)
            log.error("notifications dropped after a day", count=given_up)
        due_us = int(self._now() * SECOND)
        while waiting := await self._outbox.take(due_us, now_us=int(self._now() * SECOND)):
            if self._now() * SECOND < waiting.due_us:  # paused past its lease: another replica may have sent it
                taken += await self._deliver(waiting)
        self._metrics.outbox.set(await self._outbox.size())
        return taken

    async def _deliver(self, waiting: PendingNotification) -> bool:
        reason = await self._post(waiting.body)
        if reason is None:
            await self._outbox.sent(waiting)
            self._metrics.delivered.inc()
        else:
            wait_s = min(2.0 ** min(waiting.attempts - 1, _DOUBLINGS), _BACKOFF_MAX_S)
            await self._outbox.reschedule(waiting, int((self._now() + wait_s) * SECOND))
            self._metrics.refused.inc()
            if not self._is_refused:
                log.warning("webhook did not take a notification; it is sent again", reason=reason)
        self._is_refused = reason is not None
        return reason is None

    async def _post(self, body: str) -> str | None:
        """Return None, or the reason for a failed delivery."""
        if self._is_alertmanager:
            body = alertmanager_request(body)
        content = body.encode()
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._session.post(
                    self._url,
                    data=content,
                    headers=self._headers(content),
                    allow_redirects=False,
                ) as response:
                    return None if 200 <= response.status < 300 else f"status {response.status}"
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            return type(error).__name__

    def _headers(self, content: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if self._signing_key:
            headers[SIGNATURE] = sign(content, self._signing_key, int(self._now()))
        return headers


def sign(content: bytes, key: bytes, at_s: int) -> str:
    """Return `t=SECONDS,v1=HEX`: HMAC-SHA256 over the time, a full stop and the body."""
    return f"t={at_s},v1={hmac.new(key, b'%d.%b' % (at_s, content), 'sha256').hexdigest()}"
