"""What a server tells of its work, as Prometheus reads it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SPACE = "minigpt4_video"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The figures of one server; none is global, so that a process may hold two."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by where they went and how they ended.", "route", "status")
        self.waiting = self._gauge("requests_in_progress", "Chat requests that wait or are being answered.")
        self.line = self._gauge("queue_length", "Prompts that wait for room in the model.")
        self.speaking = self._gauge("answers_in_progress", "Answers that the model is finding.")
        self.first_token = self._times("time_to_first_token_seconds", "From a request's arrival to its first token.")
        self.whole = self._times("request_seconds", "From a request's arrival to the end of its answer.")
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self.kept_tokens = self._counter("prompt_tokens_kept", "Of these, tokens that had been read before.")
        self.tokens = self._counter("generated_tokens", "Tokens of answers.")
        self.prefixes = self._counter("prefixes", "Prompts by where what they begin with was found.", "found")
        self.videos = self._counter("videos", "Videos and pictures by where their frames were found.", "found")
        self.undecodable = self._counter("decode_failures", "Videos and pictures that could not be used.")

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(name, told, labels, namespace=SPACE, registry=self.registry)

    def _gauge(self, name: str, told: str) -> Gauge:
        return Gauge(name, told, namespace=SPACE, registry=self.registry)

    def _times(self, name: str, told: str) -> Histogram:
        return Histogram(name, told, namespace=SPACE, registry=self.registry, buckets=SECONDS)
