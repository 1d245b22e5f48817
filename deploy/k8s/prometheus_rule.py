"""Write the PrometheusRule of Kubernetes from the alerts of Compose: `make alerts RUNBOOKS=URL`.

The optional argument is the address of your copy of docs/operations/alerts.md. It replaces the one in every
runbook_url, in both files.
"""

import re
import sys
from pathlib import Path
from typing import Final

DEPLOY: Final = Path(__file__).parents[1]
ALERTS: Final = DEPLOY / "compose/observability/alerts.yml"
RULE: Final = DEPLOY / "k8s/components/monitoring/rules.yaml"
HEADER: Final = """\
# Generated from deploy/compose/observability/alerts.yml by `make alerts`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata: {name: sluice}
spec:
"""


def with_runbooks(alerts: str, url: str) -> str:
    """Replace the address before the # of every runbook_url."""
    return re.sub(r"(runbook_url: )[^#\n]*(#\w+)", rf"\g<1>{url}\g<2>", alerts)


def prometheus_rule(alerts: str) -> str:
    """Return the PrometheusRule that contains the groups of a Prometheus rule file."""
    groups = alerts[alerts.index("groups:") :]
    return HEADER + re.sub(r"^(?=.)", "  ", groups, flags=re.MULTILINE)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1]:
        ALERTS.write_text(with_runbooks(ALERTS.read_text(), sys.argv[1]))
    RULE.write_text(prometheus_rule(ALERTS.read_text()))
