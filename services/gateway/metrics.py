"""What the gateway counts, in Prometheus' text format. No label holds a name that a stranger chose."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """One registry per assembly, so that several gateways fit into one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._deliveries = Counter(
            "millrace_deliveries",
            "Webhook requests by what became of them.",
            ["outcome"],
            registry=self._registry,
        )
        self._relayed = Counter(
            "millrace_relayed",
            "Deliveries taken from the inbox by what became of them.",
            ["outcome"],
            registry=self._registry,
        )
        self._backlog = Gauge(
            "millrace_inbox_pending", "Deliveries that wait to be relayed.", registry=self._registry
        )
        self._lag = Gauge("millrace_inbox_lag_seconds", "Age of the oldest of them.", registry=self._registry)

    def delivery(self, outcome: str) -> None:
        """A request was answered, or its client left."""
        self._deliveries.labels(outcome).inc()

    def relayed(self, outcome: str) -> None:
        """A delivery left the inbox, or was put off."""
        self._relayed.labels(outcome).inc()

    def render(self, backlog: int, lag: float) -> bytes:
        """Everything, as of now."""
        self._backlog.set(backlog)
        self._lag.set(lag)
        return generate_latest(self._registry)
