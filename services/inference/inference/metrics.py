"""Prometheus metrics of scoring."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from common.runtime.metrics import LATENCY_BUCKETS_S
from inference.batching.batcher import Batcher, BatchReport
from inference.batching.jobs import ScoringFailed
from inference.engines.base import ModelCard
from inference.prediction.predictor import Answer, Predictor

_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_TOKENS: Final = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class InferenceMetrics:
    """Batches, texts and refusals; gauges read the queue when they are scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._tokenise = self._histogram(
            "sluice_inference_tokenise_seconds", "Time to tokenise one batch.", LATENCY_BUCKETS_S
        )
        self._batch_size = self._histogram("sluice_inference_batch_size", "Texts in one batch.", _SIZES)
        self._batch_tokens = self._histogram(
            "sluice_inference_batch_tokens", "Tokens in one batch, without padding.", _TOKENS
        )
        self._batch_seconds = self._histogram(
            "sluice_inference_batch_seconds", "Time to score one batch.", LATENCY_BUCKETS_S
        )
        self._queue = self._histogram(
            "sluice_inference_queue_seconds", "Time from arrival to scoring, per text.", LATENCY_BUCKETS_S
        )
        self._compute = self._histogram(
            "sluice_inference_compute_seconds", "Time in scoring, per text.", LATENCY_BUCKETS_S
        )
        self._padded = Counter(
            "sluice_inference_padded_tokens",
            "Tokens scored with padding; the padding share is 1 - batch_tokens_sum / padded_tokens.",
            registry=registry,
        )
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

    def watch(self, batcher: Batcher, predictor: Predictor) -> None:
        """Add gauges for the queue, the cache and the workers."""
        self._gauge("sluice_inference_queue_depth", "Texts waiting.").set_function(lambda: batcher.queue.depth)
        self._gauge("sluice_inference_queue_tokens", "Tokens waiting or being scored.").set_function(
            lambda: batcher.queue.tokens
        )
        self._gauge("sluice_inference_queue_age_seconds", "Age of the oldest text.").set_function(
            lambda: batcher.queue.oldest_age_s
        )
        self._gauge("sluice_inference_predicted_wait_seconds", "For the next text.").set_function(
            lambda: batcher.queue.wait_s
        )
        self._gauge("sluice_inference_workers_ready", "Workers with a warm engine.").set_function(
            lambda: batcher.ready_workers
        )
        self._gauge("sluice_inference_cache_bytes", "Size of the result cache.").set_function(
            lambda: predictor.cache.size_bytes
        )

    def serves(self, card: ModelCard) -> None:
        """Name the model in `sluice_inference_model_info`."""
        info = Info("sluice_inference_model", "The model that answers.", registry=self._registry)
        info.info({"name": card.name, "revision": card.revision, "engine": card.engine, "device": card.device})

    def batch(self, report: BatchReport) -> None:
        self._batch_size.observe(report.size)
        self._batch_tokens.observe(report.tokens)
        self._batch_seconds.observe(report.seconds)
        self._padded.inc(report.padded_tokens)
        if report.tokenize_s is not None:
            self._tokenise.observe(report.tokenize_s)

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

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, buckets=bounds, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)
