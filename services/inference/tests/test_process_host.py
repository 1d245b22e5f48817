"""The engine in a process of its own: the same scores, errors that say what happened, and no process left behind."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import bundle
from inference.bundle import Bundle
from inference.engine import Encoded, ModelError
from inference.onnx_engine import OnnxEngine
from inference.process_engine import ProcessEngine, ScoringProcessFailed
from inference.scoring_process import pack_rows, pack_texts, unpack_rows, unpack_texts

IDS = st.lists(st.integers(0, 30_000), max_size=20).map(tuple)


@pytest.fixture(scope="module")
def bundled() -> Bundle:
    return bundle.load()


@pytest.fixture
def engine(bundled: Bundle) -> Iterator[ProcessEngine]:
    engine = ProcessEngine(bundled)
    yield engine
    engine.close()


def test_scores__are_those_of_the_engine_in_this_process_to_the_bit(engine: ProcessEngine, bundled: Bundle) -> None:
    here = OnnxEngine(bundled.model, bundled.tokenizer, bundled.card)
    texts = engine.encode([each.text for each in bundled.reference])
    assert texts == here.encode([each.text for each in bundled.reference])
    assert engine.score(texts) == here.score(texts)


def test_batch_that_the_engine_refuses__fails_with_the_kind_of_error_and_the_next_is_scored(
    engine: ProcessEngine,
) -> None:
    with pytest.raises(ScoringProcessFailed, match="Invalid"):
        engine.score([Encoded((1 << 30,))])
    assert len(engine.score(engine.encode(["good"]))) == 1


def test_process_that_was_killed__fails_every_batch_and_can_be_closed(engine: ProcessEngine) -> None:
    os.kill(engine.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(ScoringProcessFailed, match="gone"):
            engine.score([Encoded((101, 102))])


def test_process_that_hangs__is_killed_and_fails_every_batch(bundled: Bundle) -> None:
    engine = ProcessEngine(bundled, patience_s=0.1)
    try:
        os.kill(engine.pid, signal.SIGSTOP)
        with pytest.raises(ScoringProcessFailed, match="hangs"):
            engine.score([Encoded((101, 102))])
        with pytest.raises(ScoringProcessFailed):  # gone, or still on its way out
            engine.score([Encoded((101, 102))])
    finally:
        engine.close()
    assert not psutil.pid_exists(engine.pid)


def test_closed_engine__leaves_no_process_and_still_reads(bundled: Bundle) -> None:
    engine = ProcessEngine(bundled)
    engine.close()
    assert not psutil.pid_exists(engine.pid)
    assert engine.encode(["good"])[0].tokens == 3


def test_signals_for_the_service__do_not_end_the_process(engine: ProcessEngine) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(engine.pid, number)
    assert len(engine.score(engine.encode(["good"]))) == 1


def test_model_that_the_process_cannot_load__is_told(bundled: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        ProcessEngine(replace(bundled, folder=tmp_path / "nowhere"))


def test_model_that_was_replaced_since_it_was_read__is_not_scored_with(bundled: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bundled.folder, folder)
    loaded = bundle.load(folder)
    card = folder / bundle.CARD
    card.write_text(card.read_text().replace(loaded.card.revision, "another"))
    sums = folder / bundle.CHECKSUMS
    lines = [line for line in sums.read_text().splitlines() if not line.endswith(bundle.CARD)]
    digest = hashlib.sha256(card.read_bytes()).hexdigest()
    sums.write_text("\n".join([*lines, f"{digest}  {bundle.CARD}", ""]))
    with pytest.raises(ModelError, match="only a new process"):
        ProcessEngine(loaded)


def test_service_that_was_killed__leaves_no_process() -> None:
    program = """
import signal
from inference import bundle
from inference.process_engine import ProcessEngine
print(ProcessEngine(bundle.load()).pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        scoring = psutil.Process(int(service.stdout.readline()))
        service.kill()
    _, alive = psutil.wait_procs([scoring], timeout=20)
    assert not alive


@given(st.lists(IDS))
def test_texts__arrive_as_they_were_sent(texts: list[tuple[int, ...]]) -> None:
    assert unpack_texts(pack_texts([Encoded(ids) for ids in texts])) == [Encoded(ids) for ids in texts]


@given(st.integers(1, 5).flatmap(lambda width: st.lists(st.tuples(*[st.floats(allow_nan=False)] * width))))
def test_rows__arrive_as_they_were_sent(rows: list[tuple[float, ...]]) -> None:
    assert unpack_rows(pack_rows(rows)) == rows
