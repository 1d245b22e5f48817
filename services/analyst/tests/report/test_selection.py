"""What models can and cannot do to a report: good, careless and hostile ones, over random facts."""

import json
import random
import re
from typing import Any

import pytest
from true_reports import expected_value, random_aggregate, random_drift

from analyst.facts.checks import run_checks, status_of
from analyst.facts.facts import read_facts
from analyst.llm.prompt import write_prompt
from analyst.report import actions, hypotheses
from analyst.report.examples import REPORT
from analyst.report.format import show
from analyst.report.markdown import to_markdown
from analyst.report.models import Report
from analyst.report.selection import (
    MalformedSelection,
    Offer,
    UnknownChoice,
    check_interpretation,
    default_selection,
    make_offer,
    parse_selection,
    response_schema,
)
from analyst.report.templates import FigureBook, state
from analyst.report.writing import Written, write

REPORTS = 500
HOSTILE_TEXTS = (
    "The p95 latency rose by 47%.",
    "<script>alert(1)</script>",
    "[click](http://evil)",
    "Half of the requests failed.",
    "The figure is {f9999}.",
    "The figure is {e1}.",
    "The figure is {f1",
    "Latenz stieg um ４７ Prozent.",
    "延迟上升了百分之五十三。",
    "It cost $ a lot.",
    "x" * 10_000,
    "One. Another. A third. A fourth.",
    "line\x00break",
    "&lt;b&gt;",
    "Ⅳ failures.",
)


def _offer(chance: random.Random) -> tuple[Offer, dict[str, Any]]:
    aggregate, drift = random_aggregate(chance), random_drift(chance)
    facts = read_facts(aggregate, "1h", drift)
    observations = run_checks(facts)
    document = aggregate.model_dump(mode="json") | {"drift": drift.model_dump(mode="json")}
    return make_offer(facts, observations, status_of(facts, observations)), document


def _good(offer: Offer, chance: random.Random) -> dict[str, Any]:
    """An honest answer: some observations, in any grouping, and a cited sentence."""
    reference = chance.choice([*offer.book.by_id])
    names = chance.sample([*offer.observations], chance.randint(0, len(offer.observations)))
    findings = [
        {
            "observations": [name],
            "hypothesis": chance.choice([*offer.hypotheses, "none"]),
            "confidence": chance.choice(["low", "medium", "high"]),
        }
        for name in names
    ]
    chosen = chance.sample([*offer.actions], min(len(offer.actions), 3))
    return {
        "headline": chance.choice([*offer.headlines, "none"]),
        "findings": findings,
        "actions": [{"action": key, "priority": "high"} for key in chosen],
        "interpretation": chance.choice(["", f"The p95 latency tells most, and {{{reference}}}."]),
    }


def _careless(offer: Offer, chance: random.Random) -> dict[str, Any]:
    """Repeats itself, mixes causes and effects, and writes figures into the paragraph."""
    answer = _good(offer, chance)
    answer["findings"] *= 2
    answer["actions"] *= 3
    answer["interpretation"] = chance.choice(HOSTILE_TEXTS)
    return answer


def _hostile(offer: Offer, chance: random.Random) -> dict[str, Any]:
    """Invents ids and puts text where ids belong."""
    answer = _careless(offer, chance)
    place = chance.choice(["headline", "findings", "actions"])
    invented = chance.choice(("o999", "disable_authentication", *HOSTILE_TEXTS))
    if place == "headline":
        answer["headline"] = invented
    elif place == "findings":
        answer["findings"] = [{"observations": ["o1"], "hypothesis": invented, "confidence": "high"}]
    else:
        answer["actions"] = [{"action": invented, "priority": "high"}]
    return answer


def _check(written: Written, offer: Offer, document: dict[str, Any]) -> None:
    """Every sentence is a template of this offer, and every figure was looked up."""
    sentences = {state(each, offer.book).detail for each in offer.observations.values()}
    for finding in written.findings:
        rest = finding.detail
        for sentence in sentences:
            rest = rest.replace(sentence, "")
        assert not rest.strip()
        assert finding.cause is None or finding.cause in {each.sentence for each in offer.hypotheses.values()}
    for item in written.recommendations:
        assert item.action in {each.sentence for each in offer.actions.values()}
    assert len(written.recommendations) <= 3
    for figure in written.figures:
        assert figure.value == pytest.approx(expected_value(document, figure), rel=1e-9)
    shown = {each.severity for finding in written.findings for each in [finding]}
    severe = {each.severity for each in offer.observations.values()} - {"info"}
    assert severe <= shown | {"info"} or severe <= shown
    assert written.interpretation is None or not re.search(r"[<>{}\[\]]", written.interpretation)


def test_honest_selections__are_never_refused() -> None:
    chance = random.Random(1)
    for _ in range(REPORTS):
        offer, document = _offer(chance)
        answer = _good(offer, chance)
        written = write(offer, parse_selection(json.dumps(answer), offer), None)
        assert bool(answer["interpretation"]) == (written.interpretation is not None)
        _check(written, offer, document)


def test_careless_models__cost_only_their_paragraph() -> None:
    chance = random.Random(2)
    for _ in range(REPORTS):
        offer, document = _offer(chance)
        written = write(offer, parse_selection(json.dumps(_careless(offer, chance)), offer), None)
        assert written.interpretation is None
        _check(written, offer, document)


def test_hostile_models__get_no_text_into_a_report() -> None:
    chance = random.Random(3)
    for _ in range(REPORTS):
        offer, _ = _offer(chance)
        with pytest.raises(UnknownChoice):
            parse_selection(json.dumps(_hostile(offer, chance)), offer)


def test_rules__select_every_severe_observation_and_pass_their_own_validation() -> None:
    chance = random.Random(4)
    for _ in range(REPORTS):
        offer, document = _offer(chance)
        selection = default_selection(offer)
        chosen = [name for finding in selection.findings for name in finding.observations]
        assert sorted(chosen) == sorted(offer.observations)
        assert parse_selection(selection.model_dump_json(), offer) == selection
        _check(write(offer, selection, None), offer, document)


def test_severe_observation_that_a_model_leaves_out__is_reported_all_the_same() -> None:
    offers = (_offer(random.Random(seed))[0] for seed in range(1000))
    offer = next(offer for offer in offers if offer.status == "degraded")
    answer = {"headline": "none", "findings": [], "actions": [], "interpretation": ""}
    written = write(offer, parse_selection(json.dumps(answer), offer), None)
    assert "warning" in {finding.severity for finding in written.findings}
    assert written.summary.startswith("The service is degraded.")


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_interpretation_that_is_not_plain_text_without_own_figures__is_dropped(text: str) -> None:
    assert check_interpretation(text, _offer(random.Random(6))[0].book) is None


@pytest.mark.parametrize(
    "text", ["The p95 latency is {f1}.", "Длинные тексты замедляют ответы: {f1}.", "Texts are longer, so they wait."]
)
def test_interpretation__has_its_references_filled_in(text: str) -> None:
    book = _offer(random.Random(6))[0].book
    assert check_interpretation(text, book) == text.replace("{f1}", show(book.by_id["f1"]))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"headline": 1}', '{"headline": "none", "surprise": 1}'])
def test_text_that_is_not_the_json_asked_for__is_malformed(text: str) -> None:
    with pytest.raises(MalformedSelection):
        parse_selection(text, _offer(random.Random(7))[0])


def test_schema__lists_what_is_offered() -> None:
    offer, _ = _offer(random.Random(8))
    properties = response_schema(offer)["properties"]
    finding = properties["findings"]["items"]["properties"]
    assert properties["headline"]["enum"] == [*offer.headlines, "none"]
    assert finding["observations"]["items"]["enum"] == [*offer.observations]
    assert finding["hypothesis"]["enum"] == [*offer.hypotheses, "none"]


def test_prompt__is_the_same_for_the_same_facts_and_names_them() -> None:
    offer, _ = _offer(random.Random(9))
    prompt = write_prompt(offer, [])
    assert prompt == write_prompt(offer, [])
    assert "p95 latency, current" in prompt.user
    assert "malformed" in write_prompt(offer, ["headline: missing"]).user


def test_hypotheses_and_actions__have_unique_keys_and_known_names() -> None:
    assert len(hypotheses.BY_KEY) == len(hypotheses.HYPOTHESES)
    assert len(actions.BY_KEY) == len(actions.ACTIONS)
    for action in actions.ACTIONS:
        assert action.hypotheses <= hypotheses.BY_KEY.keys()
    for hypothesis in hypotheses.HYPOTHESES:
        assert any(hypothesis.key in action.hypotheses for action in actions.ACTIONS)


def test_markdown_of_a_hostile_paragraph__has_no_markup() -> None:
    offer, _ = _offer(random.Random(10))
    for text in HOSTILE_TEXTS:
        report: Report = REPORT.model_copy(update={"interpretation": check_interpretation(text, offer.book)})
        assert "Interpretation" not in to_markdown(report)


def test_book__numbers_figures_in_the_order_of_the_facts() -> None:
    offer, _ = _offer(random.Random(11))
    first = FigureBook(offer.facts).by_id["f1"]
    assert (first.metric, first.window) == ("requests", "current")
