"""Why an upstream gave no usable response."""


class UpstreamError(Exception):
    """Base class: the request has no response that can be passed on."""


class BadGateway(UpstreamError):
    """The upstream is unreachable, closed the connection early, or sent a malformed response (502)."""


class UpstreamOverloaded(UpstreamError):
    """This process already has its maximum number of requests in flight to the upstream (503)."""


class UpstreamTimeout(UpstreamError):
    """The response, or the next part of its body, did not arrive in time (504)."""
