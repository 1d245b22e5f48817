"""Part of the composition root: builds the door that clients come through, out of settings."""

import structlog

from common.journal.recorder import ClientHasher
from common.runtime.metrics import HttpMetrics
from edge_limiter.api import ERRORS
from edge_limiter.body import Room
from edge_limiter.boundary import Boundary
from edge_limiter.door import Door
from edge_limiter.limits import Patience
from edge_limiter.metrics import EdgeMetrics
from edge_limiter.pages import Pages
from edge_limiter.places import Places
from edge_limiter.proxy import Proxy
from edge_limiter.repeats import Repeats
from edge_limiter.settings import EdgeSettings
from edge_limiter.unread import Unread

log = structlog.get_logger()


def create_door(settings: EdgeSettings, http: HttpMetrics, metrics: EdgeMetrics, proxy: Proxy) -> Door:
    """The door before the proxy and the pages."""

    def client_of(peer: str) -> bytes | None:
        client = proxy.clients.of(peer)
        return None if client.via_trusted_proxy else client.bucket

    patience = Patience(
        head_s=settings.edge_header_timeout_s,
        keepalive_s=settings.edge_keepalive_s,
        body_s=settings.edge_body_timeout_s,
        min_rate=settings.edge_body_min_rate,
        send_s=settings.edge_idle_timeout_s,
    )
    pages = Pages()
    boundary = Boundary(
        proxy=proxy,
        pages=pages,
        metrics=http,
        errors=ERRORS,
        default_timeout_s=settings.edge_timeout_s,
        maximum_timeout_s=settings.edge_max_timeout_s,
        hash_client=ClientHasher(settings.events_hash_key.get_secret_value()),
        repeats=Repeats(),
        is_local=settings.is_local,
    )
    places = Places(settings.edge_max_connections, client_of, metrics.connection_refused)
    room, unread = Room(settings.edge_body_memory_bytes), Unread(whose=client_of, on_cut=metrics.connection_refused)
    return Door(boundary.handle, patience, pages, places, room, unread, boundary.again)


def warn_of_undeclared_proxy(_peer: str) -> None:
    """Said once: such a deployment limits all its clients as one."""
    log.warning(
        "X-Forwarded-For from a private address is ignored: "
        "if that is your ingress, name it in EDGE_TRUSTED_PROXIES, or all its clients share one limit"
    )
