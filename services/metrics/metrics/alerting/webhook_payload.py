"""Formats notifications as Alertmanager's webhook, version 4, with one alert each.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

import json
from typing import Final

from common.contracts.thresholds import ThresholdRule
from metrics.alerting.state import AlertInstance, fingerprint, labels
from metrics.ranges import as_time

_NEVER: Final = "0001-01-01T00:00:00Z"


def notice(episode: AlertInstance) -> str:
    """Return the body for a firing or resolved episode."""
    status = "firing" if episode.resolved_us is None else "resolved"
    named, annotations = labels(episode.rule), _annotations(episode)
    group = {"alertname": episode.rule.name}
    return json.dumps(
        {
            "version": "4",
            "groupKey": f'{{}}:{{alertname="{episode.rule.name}"}}',
            "truncatedAlerts": 0,
            "status": status,
            "receiver": "sluice",
            "groupLabels": group,
            "commonLabels": named,
            "commonAnnotations": annotations,
            "externalURL": "",
            "alerts": [
                {
                    "status": status,
                    "labels": named,
                    "annotations": annotations,
                    "startsAt": _moment(episode.firing_us),
                    "endsAt": _moment(episode.resolved_us),
                    "generatorURL": "",
                    "fingerprint": fingerprint(episode.rule),
                }
            ],
        }
    )


def alertmanager_request(body: str) -> str:
    """Return a notification as the body of Alertmanager's own API, `POST /api/v2/alerts`.

    Firing alerts have no end, so Alertmanager applies its `resolve_timeout` to them.
    """
    fields = ("labels", "annotations", "startsAt", "endsAt")
    alerts = [{name: alert[name] for name in fields} for alert in json.loads(body)["alerts"]]
    for alert in alerts:
        if alert["endsAt"] == _NEVER:
            del alert["endsAt"]
    return json.dumps(alerts)


def _annotations(episode: AlertInstance) -> dict[str, str]:
    rule = episode.rule
    side, limit = ("above", rule.above) if rule.above is not None else ("below", rule.below)
    return {
        "summary": f"{rule.metric}{_where(rule)} over {rule.window}: limit {side} {limit:g}",
        "value": "unknown" if episode.value is None else f"{episode.value:g}",
    }


def _where(rule: ThresholdRule) -> str:
    where = {} if rule.where is None else rule.where.model_dump(exclude_none=True)
    return f" of {', '.join(f'{name} {value}' for name, value in where.items())}" if where else ""


def _moment(us: int | None) -> str:
    return _NEVER if us is None else as_time(us).isoformat().replace("+00:00", "Z")
