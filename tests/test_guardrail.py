"""OpenAI's client and the recipe of docs/guardrail.md, through the edge."""

import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from openai import APIStatusError, NotFoundError, OpenAI, RateLimitError, UnprocessableEntityError
from system import System

RECIPE = Path(__file__).parents[1] / "docs" / "guardrail.md"
GOOD, BAD = "A thoughtful, moving film.", "A dull and lifeless mess."


def block(language: str) -> str:
    """Return the only code block of this language in the recipe."""
    [found] = re.findall(rf"```{language}\n(.*?)```", RECIPE.read_text(), re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, port_base: Callable[[], int]) -> Iterator[System]:
    """A system with the settings and the policies of the recipe."""
    folder = tmp_path_factory.mktemp("guardrail")
    (folder / "policies.toml").write_text(block("toml"))
    environment = dict(line.split("=", 1) for line in block("sh").splitlines())
    environment["EDGE_POLICY_FILE"] = str(folder / environment["EDGE_POLICY_FILE"])
    shared = System(folder / "state", port_base(), environment)
    try:
        shared.start()
        yield shared
    finally:
        shared.stop()


def client(system: System, address: str) -> OpenAI:
    headers = {"X-Forwarded-For": address}
    return OpenAI(base_url=f"{system.url}/v1", api_key="unused", max_retries=0, default_headers=headers)


def test_openai_client__reads_flags_and_scores_by_label(system: System) -> None:
    response = client(system, "203.0.113.1").moderations.create(input=[GOOD, BAD])
    assert response.model == "sluice-sentiment-minilm"
    assert [result.flagged for result in response.results] == [False, True]
    bad = response.results[1].to_dict()
    assert bad["categories"] == {"NEGATIVE": True, "POSITIVE": False}
    scores: Any = bad["category_scores"]
    assert scores["NEGATIVE"] > 0.8
    assert sum(scores.values()) == pytest.approx(1)


def test_openai_client__raises_its_own_errors(system: System) -> None:
    openai = client(system, "203.0.113.2")
    with pytest.raises(UnprocessableEntityError, match=r"input\.1: The text is blank"):
        openai.moderations.create(input=[GOOD, " "])
    openai.moderations.create(input=[GOOD] * 58)
    with pytest.raises(RateLimitError) as refused:
        openai.moderations.create(input=GOOD)
    assert int(refused.value.response.headers["Retry-After"]) >= 1
    assert openai.models.list().data[0].id == openai.models.retrieve("sluice-sentiment-minilm").id
    with pytest.raises(NotFoundError):
        openai.models.retrieve("another")


class _Llm(BaseHTTPRequestHandler):
    """A language model that repeats the question and remembers it."""

    asked: list[str] = []  # noqa: RUF012 - one server per test run

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        self.asked.append(question)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": question}}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "any", "choices": [choice]}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def llm_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Llm) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_recipe__only_unflagged_questions_reach_the_model(
    system: System, llm_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_URL", system.url)
    monkeypatch.setenv("OPENAI_BASE_URL", llm_url)
    monkeypatch.setenv("OPENAI_API_KEY", "unused")
    gateway: dict[str, Any] = {}
    exec(block("python"), gateway)
    assert gateway["answer"](GOOD) == GOOD
    assert gateway["answer"](BAD) == "I cannot help with that."
    assert _Llm.asked == [GOOD]
    gateway["guard"].close()
    gateway["llm"].close()


def test_recipe__litellm_has_the_limit_of_its_key(system: System) -> None:
    """LiteLLM posts this model and input with its key, and reads `flagged` and the pairs of `categories`."""
    [guardrail] = yaml.safe_load(block("yaml"))["guardrails"]
    settings = guardrail["litellm_params"]
    litellm = OpenAI(
        base_url=settings["api_base"].replace("http://127.0.0.1:8000", system.url),
        api_key=settings["api_key"],
        max_retries=0,
        default_headers={"X-Forwarded-For": "203.0.113.3"},
    )
    raw = litellm.moderations.with_raw_response.create(model="omni-moderation-latest", input=BAD)
    [result] = raw.parse().results
    assert result.flagged
    assert result.categories.to_dict() == {"NEGATIVE": True, "POSITIVE": False}
    assert raw.headers["RateLimit-Policy"] == '"guardrail";q=1000;w=10'
    assert len(litellm.moderations.create(input=[GOOD] * 64).results) == 64
    with pytest.raises(APIStatusError) as refused:
        client(system, "203.0.113.3").moderations.create(input=[GOOD] * 64)
    assert refused.value.status_code == 413
