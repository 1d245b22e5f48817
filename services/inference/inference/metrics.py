"""Prometheus metrics of scoring."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from common.runtime.metrics import LATENCY_BUCKETS_S
from inference.batching.batcher import Batcher
from inference.batching.jobs import ScoringFailed
from inference.engines.base import ModelCard
from inference.prediction.predictor import Answer

_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class InferenceMetrics:
    """Batches, texts and refusals; gauges read the queue when they are scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._batch_size = self._histogram("sluice_inference_batch_size", "Texts in one batch.", _SIZES)
        self._queue = self._histogram("sluice_inference_queue_seconds", "Time from arrival to scoring, per text.")
        self._compute = self._histogram("sluice_inference_compute_seconds", "Time in scoring, per text.")
        self._texts = Counter(
            "sluice_inference_texts",
            "Texts answered: scored, cached, shared with another request, or failed.",
            ["source"],
            registry=registry,
        )
        self._refusals = Counter("sluice_inference_refusals", "Texts refused.", ["reason"], registry=registry)
        for source in ("scored", "cached", "shared", "failed"):
            self._texts.labels(source)
        for reason in ("overloaded", "deadline", "journal"):
            self._refusals.labels(reason)

    def watch(self, batcher: Batcher) -> None:
        """Add gauges for the queue."""
        self._gauge("sluice_inference_queue_depth", "Texts waiting.").set_function(lambda: batcher.queue.depth)
        self._gauge("sluice_inference_queue_tokens", "Tokens waiting or being scored.").set_function(
            lambda: batcher.admission.tokens
        )
        self._gauge("sluice_inference_predicted_wait_seconds", "For the next text.").set_function(
            lambda: batcher.admission.wait_s
        )

    def serves(self, card: ModelCard) -> None:
        """Name the model in `sluice_inference_model_info`."""
        info = Info("sluice_inference_model", "The model that answers.", registry=self._registry)
        info.info({"name": card.name, "revision": card.revision, "engine": card.engine, "device": card.device})

    def batch(self, size: int) -> None:
        self._batch_size.observe(size)

    def answered(self, answer: Answer) -> None:
        if isinstance(answer, ScoringFailed):
            self._texts.labels("failed").inc()
        elif answer.cached:
            self._texts.labels("cached").inc()
        else:
            self._texts.labels("shared" if answer.shared else "scored").inc()
            self._queue.observe(answer.queue_s)
            self._compute.observe(answer.compute_s)

    def refused(self, reason: str, texts: int) -> None:
        self._refusals.labels(reason).inc(texts)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...] = LATENCY_BUCKETS_S) -> Histogram:
        return Histogram(name, text, buckets=bounds, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)
