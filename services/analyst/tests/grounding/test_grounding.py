from collections.abc import Callable

import pytest

from analyst.facts.checks import run_checks, status_of
from analyst.facts.facts import Facts, read_facts
from analyst.grounding.grounding import Refusal, check_draft
from analyst.report.models import Draft, Evidence, Finding, Reading, Recommendation, Status
from common.contracts.aggregates import Aggregate, DriftReport, LabelShare
from common.contracts.thresholds import ThresholdRule, ThresholdState

MakeAggregate = Callable[..., Aggregate]

CITED: dict[str, tuple[str, Reading]] = {
    "e1": ("latency_ms.p95", "current"),
    "e2": ("latency_ms.p95", "delta_pct"),
    "e3": ("error_rate", "delta_abs"),
    "e4": ("throughput_per_s", "delta_pct"),
    "e5": ("rule.p95-slow", "current"),
    "e6": ("rule.p95-slow", "threshold"),
    "e7": ("latency_ms.p95", "previous"),
    "e8": ("error_rate", "current"),
    "e9": ("errors.timeout", "current"),
    "e10": ("latency_ms.tail_ratio", "current"),
    "e11": ("latency_ms.p99", "delta_pct"),
    "e12": ("latency_ms.p50", "current"),
    "e13": ("requests", "delta_pct"),
    "e14": ("throughput_per_s", "current"),
    "e15": ("rule.errors", "current"),
    "e16": ("confidence.mean", "current"),
    "e17": ("limited_rate", "current"),
    "e18": ("errors.timeout", "delta_abs"),
    "e19": ("rule.errors", "threshold"),
    "e20": ("error_rate", "previous"),
    "e21": ("requests", "current"),
    "e22": ("predictions", "current"),
    "e23": ("errors.unavailable", "current"),
}
EVIDENCE = [Evidence(id=name, metric=metric, window=window) for name, (metric, window) in CITED.items()]

TRUE = (
    "The p95 latency rose by {e2} to {e1}.",
    "The p95 latency rose by {e2}, from {e7} to {e1}.",
    "The p95 latency went from {e7} to {e1} in the last 1h.",
    "In the last hour the p95 latency was {e1}.",
    "Over the last 5m the p95 latency is {e5}, above its limit of {e6}.",
    "The p95 latency is higher than its limit of {e6}.",
    "The p95 latency exceeds the configured threshold of {e6}.",
    "The threshold on p95 latency is breached.",
    "The status is critical: a threshold is breached.",
    "Throughput fell by {e4} and is worse than in the previous 1h.",
    "Falling throughput ({e4}) is worse for users.",
    "Throughput declined by {e4} to {e14}.",
    "Requests dropped by {e13}, while the p95 latency rose by {e2}.",
    "The error rate fell by {e3} to {e8}, which is an improvement.",
    "The error rate improved by {e3}.",
    "The error rate is {e8} and its limit is not breached.",
    "The error rate stays below its limit.",
    "p95 and p99 latency rose by {e2} and {e11}.",
    "Latency is worse: p95 grew by {e2}.",
    "The tail grew: p99 latency is up by {e11}.",
    "The tail-to-median ratio is {e10}.",
    "The median stays at {e12} while the tail grew.",
    "The p99 latency is many times higher than the median.",
    "There were {e9} timeout outcomes.",
    "Count of timeouts: {e9}.",
    "Timeout outcomes fell by {e18}.",
    "{e9} requests timed out.",
    "Some clients saw HTTP 503.",
    "Some requests were answered with status 504.",
    "HTTP 429 and 5xx answers are counted apart.",
    "The mean confidence is {e16}, unchanged from the window before.",
    "The share of rate-limited requests is {e17}.",
    "No requests were rate limited in this window.",
    "The p95 latency is {e1}, against {e7}.",
    "The p95 latency saw a {e2} increase.",
    "One replica may be saturated.",
    "The rise may be due to a saturated replica.",
    "Possibly a cold start after a deployment.",
    "The slowdown could come from lock contention in the database.",
    "It might be one of the dependencies.",
    "The cause is not known from these metrics.",
    "The metrics do not show what caused it.",
    "The service is critical.",
    "The service is not healthy.",
    "More replicas would spread the load.",
    "Confidence did not change.",
    "The error rate did not rise.",
    "Changes are measured against the window before.",
    "The latency_ms.p95 figure is {e1}.",
    "Consider a third-party outage, if others see it as well.",
    "Volume is lower: requests fell by {e13}.",
    "The p95 latency, at {e1}, is the one to watch.",
    "Latency rose but the error rate fell.",
    "Fewer requests were answered, yet the tail grew.",
    "Whether a bot sends them is unclear.",
    "The p95 latency may improve when load drops.",
    "The p95 latency is likely to fall if load drops.",
    "The rise of the p95 latency is probably due to a saturated replica.",
    "This suggests contention in the database.",
    "The share of requests that failed is {e8} of requests.",
    "The p95 latency ({e1}) exceeds its limit ({e6}).",
    "The p95 latency climbed {e2} to {e1}.",
    "The p95 latency shot up by {e2}.",
    "The p95 latency changed by {e2}.",
    "The p95 latency is {e2} higher than in the window before.",
    "The {e1} p95 latency breaches the {e6} limit.",
    "Traffic is down by {e13} against the previous hour.",
    "Throughput, in requests per second, fell to {e14}.",
    "Throughput was slashed by {e4} to {e14}.",
    "Timeouts fell by {e18}, to {e9}.",
    "Errors shrank: the error rate is {e8}.",
    "Before, the p95 latency was {e7}.",
    "Not everything works as expected.",
    "The latency is not acceptable.",
    "The error rate fell by {e3}, yet the service is critical.",
    "The service is critical because the threshold on p95 latency is breached.",
    "The status is critical due to a p95 latency above its limit.",
    "The I/O of the host might be saturated.",
    "The p95 latency – the tail’s “edge” – is {e1}.",
    "A naïve retry may add load, said the café’s owner.",
    "The p95 latency rose by {e2}. Before, it was {e7}, and now it is {e1}.",
    "The p95 latency is {e1}, the error rate {e8} and mean confidence {e16}.",
    "The p95 latency and the error rate are {e1} and {e8}.",
    "Errors fell by {e3}, to {e8} of requests.",
    "Of {e21} requests, {e22} were answered.",
    "Accuracy is not measured.",
    # values of now and before, and limits, each called what it is
    "The p95 latency is {e1}, and before it was {e7}.",
    "The p95 latency was {e7} before and is {e1} now.",
    "The p95 latency is {e1} now, {e7} before.",
    "The p95 latency is {e1} (previously {e7}).",
    "The previous p95 latency was {e7}, the current one is {e1}.",
    "The p95 latency is worse than before, at {e1}.",
    "The p95 latency is more than it was before ({e7}).",
    "Compared with the previous hour, the p95 latency is {e1}, up from {e7}.",
    "Compared with {e7} in the window before, the p95 latency is now {e1}.",
    "Unlike in the window before, the p95 latency is {e1}.",
    "Traffic was calm before, but the p95 latency is {e1}.",
    "The p95 latency rose to {e1} against {e7} in the window before.",
    "The p95 latency reached {e1}, compared to {e7} previously.",
    "In the window before, the p95 latency was {e7} and the error rate {e20}.",
    "The p95 latency and the error rate were {e7} and {e20} before.",
    "The limit on p95 latency is {e6}.",
    "The limit on p95 latency is breached at {e5}.",
    "The p95 latency ({e5}) breached its limit ({e6}).",
    "The p95 latency of {e5} exceeds {e6}, its limit.",
    "The p95 latency is {e5}, over the {e6} threshold.",
    "The p95 latency of {e5} is now over the limit that was set to {e6}.",
    "The error rate is {e15}; the limit is {e19}.",
    "The share of requests over the rate limit is {e17}.",
    "Look at the p95 latency ({e1}) before anything else.",
    # limits that are crossed, and those that are not
    "The p95 latency crossed its limit of {e6}.",
    "An alert on p95 latency is firing.",
    "No alert on the error rate is firing.",
    "The error rate has not crossed its limit.",
    "The error rate respects its configured limit of {e19}.",
    "The error rate is {e15}, with a limit of {e19}.",
    "The error rate has {e19} as its limit.",
    "The error rate limit of {e19} is not exceeded.",
    "The limit of {e19} on the error rate leaves room.",
    "Some clients ran into the rate limit.",
    # how many, in words
    "Nothing was rate-limited.",
    "Requests were answered without a refusal.",
    "Errors are rare, at {e8}.",
    "Few requests failed.",
    "There is no increase in timeouts.",
    "Timeouts did not grow.",
    "The bulk of the failures were timeouts.",
    "Timeout outcomes outnumber unavailable outcomes.",
    "Nothing failed if the errors are those of a proxy that may be overloaded.",
    "The error rate is well below its limit.",
    "The error rate remains well within its limit.",
    "Traffic is well under its earlier level.",
    "Latency is higher than expected.",
    "The fall in traffic is expected to continue.",
)

FALSE = (
    ("p95 latency is 450 ms.", "literal figure"),
    ("p95 latency is ４５０.", "literal figure"),
    ("About ½ of it is queueing.", "literal figure"),
    ("The change is Ⅻ.", "literal figure"),
    ("Errors are at 3%.", "literal figure"),
    ("There were 500 errors.", "literal figure"),
    ("It answered 503 times.", "literal figure"),
    ("HTTP 412 ms was seen.", "literal figure"),
    ("Status 999 was seen.", "literal figure"),
    ("The service was slow for 1h.", "literal figure"),
    ("In the last 6h the p95 latency was {e1}.", "literal figure"),
    ("Latency has doubled.", "number word"),
    ("It is twice as slow.", "number word"),
    ("Five replicas answer.", "number word"),
    ("A tenfold change.", "number word"),
    ("Half of it is queueing.", "number word"),
    ("About a third of it is queueing.", "number word"),
    ("It changed by one percent.", "number word"),
    ("Roughly one in ten is slow.", "number word"),
    ("Hundreds of texts were late.", "number word"),
    ("Orders of magnitude separate them.", "number word"),
    ("Most requests failed.", "quantity without a figure"),
    ("Nearly all of the clients are affected.", "quantity without a figure"),
    ("The gpu_util metric is high.", "unknown metric"),
    ("The latency_ms.p42 value is high.", "unknown metric"),
    ("The p75 latency is high.", "unknown metric"),
    ("The figure is {e99}.", "dangling reference"),
    ("The figure is {p95}.", "malformed reference"),
    ("The figure is {e1.", "malformed reference"),
    # signs, units and nouns beside a figure
    ("The p95 latency is {e1} ms.", "a unit or noun after a reference"),
    ("The error rate is {e8}%.", "something touches a reference"),
    ("The error rate is -{e8}.", "something touches a reference"),
    ("The error rate is - {e8}.", "something touches a reference"),
    ("The error rate is −{e8}.", "something touches a reference"),
    ("The error rate is minus {e8}.", "number word"),
    ("The p95 latency is ~{e1}.", "something touches a reference"),
    ("The p95 latency is {e1}k.", "something touches a reference"),
    ("The p95 latency is {e1}{e8}.", "something touches a reference"),
    ("The p95 latency is {e1}/{e8}.", "something touches a reference"),
    ("The p95 latency is x{e1}.", "something touches a reference"),
    ("The p95 latency is {e1} * {e10}.", "something touches a reference"),
    ("The p95 latency is {e1} hours.", "a unit or noun after a reference"),
    ("The p95 latency is {e1} minutes.", "a unit or noun after a reference"),
    ("The p95 latency is {e1} long minutes.", "a unit or noun after a reference"),
    ("The p95 latency is ({e1}) minutes.", "a unit or noun after a reference"),
    ("The p95 latency is {e1} k.", "a unit or noun after a reference"),
    ("The p95 latency is {e1} requests.", "a unit or noun after a reference"),
    ("The p95 latency is {e1} per request.", "a unit or noun after a reference"),
    ("The p95 latency was {e1} yesterday.", "a unit or noun after a reference"),
    ("There were {e9} failures per minute.", "a unit or noun after a reference"),
    ("There were {e9} unavailable outcomes.", "a unit or noun after a reference"),
    ("The error rate is {e8} of clients.", "a unit or noun after a reference"),
    ("The p95 latency is {e1} of requests.", "a unit or noun after a reference"),
    ("Throughput is {e14} requests.", "a unit or noun after a reference"),
    ("Requests fell by {e13} requests.", "a unit or noun after a reference"),
    ("Latency is VII ms.", "number word"),
    ("Latency is at vii.", "number word"),
    ("Latency is at \U0001f51f.", "hidden character or picture"),  # a keycap that says ten
    ("The p95 latency is \U0001f4af.", "hidden character or picture"),
    ("There were ni\u200bne timeouts.", "hidden character or picture"),  # a space of no width
    ("The error rate is f\u00adifty percent.", "hidden character or picture"),  # a hyphen that is not shown
    ("There were ni\ufe0fne timeouts.", "hidden character or picture"),  # a mark that is not shown
    ("There were ni\x7fne timeouts.", "hidden character or picture"),
    ("There were ni\u2028ne timeouts.", "hidden character or picture"),
    ("Latency is X.", "number word"),
    ("Latency is a few ms.", "unit without a figure"),
    ("The error rate is a few percent.", "unit without a figure"),
    ("The septuple of it was seen.", "number word"),
    ("A fifteenth of it is queueing.", "number word"),
    ("A single request timed out.", "number word"),
    ("The only failed request was slow.", "number word"),
    # times
    ("In the last year the p95 latency was {e1}.", "a time that was not measured"),
    ("In the last day the p95 latency was {e1}.", "a time that was not measured"),
    ("Yesterday the p95 latency was {e1}.", "a time that was not measured"),
    ("For a week the p95 latency was {e1}.", "a time that was not measured"),
    ("For hours the p95 latency was {e1}.", "a time that was not measured"),
    ("Confidence is at an all-time low of {e16}.", "a time that was not measured"),
    ("Throughput has never been better at {e14}.", "a time that was not measured"),
    ("Since Monday the p95 latency was {e1}.", "a time that was not measured"),
    ("Timeouts per minute: {e9}.", "a time that was not measured"),
    ("Against the day before the p95 latency rose to {e1}.", "a time that was not measured"),
    ("Over the last 5m the p95 latency was {e1}.", "another window than the figure's"),
    ("In the last 1h the p95 latency is {e5}.", "another window than the figure's"),
    ("In the previous 1h the p95 latency was {e1}.", "a value of this window in the window before"),
    ("In the last 1h the p95 latency was {e7}.", "a value of the window before, not called so"),
    ("The p95 latency is {e6}.", "a limit, not called so"),
    ("The p95 latency is {e7}, and before it was {e1}.", "a value of this window in the window before"),
    ("The p95 latency is {e7}, more than before.", "a value of the window before, not called so"),
    ("Before, the p95 latency was {e1}.", "a value of this window in the window before"),
    ("In the window before, the p95 latency was {e1}.", "a value of this window in the window before"),
    ("The previous p95 latency was {e1}.", "a value of this window in the window before"),
    ("Earlier the p95 latency was {e1}, and now it is worse.", "a value of this window in the window before"),
    ("The p95 latency is up from {e1}.", "a value of this window in the window before"),
    ("The p95 latency rose to {e7}, up from before.", "a value of the window before, not called so"),
    ("The error rate was {e8} before.", "a value of this window in the window before"),
    ("The error rate was higher before and is {e20} now.", "a value of the window before, not called so"),
    ("Compared with before, the p95 latency is now {e7}.", "a value of the window before, not called so"),
    ("Compared with before, the p95 latency is {e7}.", "a value of the window before, not called so"),
    ("The limit on p95 latency is {e5}.", "a value called a limit"),
    ("The threshold of the error rate is {e15}.", "a value called a limit"),
    ("The error rate is below its limit of {e15}.", "a value called a limit"),
    ("The error rate is below its limit ({e8}).", "a value called a limit"),
    ("The configured threshold for the error rate, {e8}, was kept.", "a value called a limit"),
    ("The error rate is below the {e8} threshold.", "a value called a limit"),
    ("The p95 latency is {e6}, above its limit of {e5}.", "a limit, not called so"),
    ("The error rate crossed its limit of {e19}.", "a limit that nothing crossed"),
    ("The error rate went past the threshold of {e19}.", "a limit that nothing crossed"),
    ("The error rate is beyond the configured limit.", "a limit that nothing crossed"),
    ("The error rate frobnicates its limit.", "a limit that nothing crossed"),
    ("The limit of {e19} on the error rate was missed.", "a limit that nothing crossed"),
    ("The error rate threshold was crossed.", "a limit that nothing crossed"),
    ("The error rate is close to its limit of {e19}.", "near a limit that is far away"),
    ("An alert on the error rate is firing.", "a breach against the data"),
    ("The error rate rings an alarm.", "a breach against the data"),
    ("No alert is firing.", "a breach against the data"),
    # how many, in words
    ("Nothing failed.", "none of what there is"),
    ("Nothing failed, so more load may be taken.", "none of what there is"),
    ("Not a request timed out.", "none of what there is"),
    ("The service ran without any failures.", "none of what there is"),
    ("The answers are error-free.", "none of what there is"),
    ("Timeouts did not occur.", "none of what there is"),
    ("Failures are absent.", "none of what there is"),
    ("There were no unavailable outcomes.", "none of what there is"),
    ("There were hardly any errors.", "few of what there is more of"),
    ("Practically no request was answered.", "few of what there is more of"),
    ("Only a handful of requests were answered.", "few of what there is more of"),
    ("No request succeeded.", "none of what there is"),
    ("Hardly a request failed.", "few of what there is more of"),
    ("Traffic came to a halt.", "none of what there is"),
    ("The bulk of the failures were unavailable outcomes.", "most of what is less"),
    ("Unavailable outcomes outnumber timeouts.", "most of what is less"),
    ("Throughput is a record.", "a time that was not measured"),
    ("Response times are excellent.", "healthy though it is not"),
    # directions
    ("The p95 latency has been cut by {e2}.", "direction against the data"),
    ("The p95 latency was slashed by {e2}.", "direction against the data"),
    ("The p95 latency is {e2}.", "a change without a direction"),
    ("The p95 latency frobnicated by {e2}.", "a change without a direction"),
    ("The p95 latency stays at {e1}.", "direction against the data"),
    ("The error rate skyrocketed to {e8}.", "direction against the data"),
    ("Errors multiplied.", "direction against the data"),
    ("Errors exploded while traffic fell.", "direction against the data"),
    ("Timeouts rose.", "direction against the data"),
    ("Confidence collapsed.", "direction against the data"),
    ("The p95 latency may have fallen.", "direction against the data"),
    ("The p95 latency probably fell.", "direction against the data"),
    ("The p95 latency is possibly within its limit.", "within limits though one is breached"),
    # everything is fine, and everything failed
    ("Everything works as expected.", "healthy though it is not"),
    ("All systems operational.", "healthy though it is not"),
    ("Performance is excellent.", "healthy though it is not"),
    ("There is nothing to worry about.", "healthy though it is not"),
    ("Latency is normal.", "healthy though it is not"),
    ("The service runs smoothly.", "healthy though it is not"),
    ("No action is needed.", "healthy though it is not"),
    ("The service meets its targets.", "healthy though it is not"),
    ("There is no cause for concern.", "healthy though it is not"),
    ("Every request failed.", "quantity without a figure"),
    ("Each request was refused.", "quantity without a figure"),
    ("There are no signs of trouble.", "healthy though it is not"),
    ("The SLA is met.", "healthy though it is not"),
    ("There are no signs of an incident.", "healthy though it is not"),
    ("The error rate is below its limit and all is well.", "healthy though it is not"),
    ("Traffic is expected.", "healthy though it is not"),
    ("Nobody was served.", "quantity without a figure"),
    ("Requests always fail.", "quantity without a figure"),
    ("Data were lost.", "a claim that no metric carries"),
    ("Predictions may have been lost.", "a claim that no metric carries"),
    ("An attacker is flooding the service.", "a claim that no metric carries"),
    ("Customers complained.", "a claim that no metric carries"),
    ("The service is critical because the database crashed.", "a cause stated as a fact"),
    ("The service is critical because the error rate is above its limit.", "on the wrong side of a limit"),
    ("Users are happy.", "a claim that no metric carries"),
    ("The service does not respond.", "a cause stated as a fact"),
    ("The p95 latency is {e12}.", "reference under another metric's name"),
    ("The error rate is {e17}.", "reference under another metric's name"),
    ("The p95 latency is {e12} and the median is {e1}.", "reference under another metric's name"),
    ("Accuracy is {e16}.", "a figure in a sentence that names no metric"),
    ("The mean confidence is {e16}. Uptime is {e16}.", "a figure in a sentence that names no metric"),
    ("Precision and recall are {e16}.", "a figure in a sentence that names no metric"),
    ("The number of clients is {e21}.", "a figure in a sentence that names no metric"),
    ("It is {e1}.", "a figure in a sentence that names no metric"),
    ("The error rate fell. It is {e1}.", "reference under another metric's name"),
    ("The cache served {e22} predictions.", "a claim that no metric carries"),
    ("The model's answers are correct.", "a claim that no metric carries"),
    ("Throughput is {e16}.", "reference under another metric's name"),
    ("The error rate rose by {e3}.", "direction against the data"),
    ("Throughput rose by {e4}.", "direction against the data"),
    ("Throughput improved by {e4}.", "direction against the data"),
    ("The p95 latency improved by {e2}.", "direction against the data"),
    ("The p95 latency fell to {e1}.", "direction against the data"),
    ("Throughput rose by {e4} while errors fell.", "direction against the data"),
    ("The p95 latency did not rise, it is {e1}.", "direction against the data"),
    ("Latency decreased.", "direction against the data"),
    ("The error rate is worse.", "direction against the data"),
    ("The p95 latency is stable at {e1}.", "direction against the data"),
    ("Confidence dropped.", "direction against the data"),
    ("Things are getting worse.", "direction without a metric"),
    ("The p90 rose.", "direction against the data"),
    ("The average latency rose.", "direction against the data"),
    ("The max latency rose.", "direction against the data"),
    ("The p99 was stable.", "direction against the data"),
    ("The throughput shot up.", "direction against the data"),
    ("The throughput was bigger.", "direction against the data"),
    ("The p95 latency eased.", "direction against the data"),
    ("The p95 latency subsided.", "direction against the data"),
    ("The p95 latency was smaller.", "direction against the data"),
    ("The p95 latency rose by {e1}.", "a change 'by' something that is not a change"),
    ("The p95 latency rose to {e2}.", "a change where a level belongs"),
    ("The p95 latency went from {e1} to {e7}.", "from … to … must go from previous to current"),
    ("The p95 latency is below its limit of {e6}.", "on the wrong side of a limit"),
    ("The error rate surpassed its limit.", "on the wrong side of a limit"),
    ("The p95 latency undercuts its limit of {e6}.", "on the wrong side of a limit"),
    ("The error rate is above its limit.", "on the wrong side of a limit"),
    ("All metrics are within their limits.", "within limits though one is breached"),
    ("No threshold is breached.", "a breach against the data"),
    ("The error rate threshold is breached.", "a breach against the data"),
    ("The service is healthy.", "healthy though it is not"),
    ("Everything is fine.", "healthy though it is not"),
    ("There are no issues.", "healthy though it is not"),
    ("The service is degraded.", "another status than the data's"),
    ("There were no errors.", "none of what there is"),
    ("There was no traffic.", "none of what there is"),
    ("Traffic stopped.", "none of what there is"),
    ("The errors recur daily.", "a time that was not measured"),
    ("The p95 latency peaked.", "a time that was not measured"),
    ("The database is down.", "a cause stated as a fact"),
    ("The service is down.", "a cause stated as a fact"),
    ("A replica is saturated.", "a cause stated as a fact"),
    ("Latency rose because of a deployment.", "a cause stated as a fact"),
    ("The rise was caused by garbage collection.", "a cause stated as a fact"),
    ("Clients cause the timeouts.", "a cause stated as a fact"),
    ("The GPU ran out of memory.", "a cause stated as a fact"),
    ("It may be due to the weather.", "a cause that is not a listed hypothesis"),
    ("See https://example.com for more.", "markup"),
    ("<b>Slow</b> answers.", "markup"),
    ("[Click](here).", "markup"),
    ("", "empty"),
    ("Slow. " * 300, "too long"),
)

TRUE_ACTIONS = (
    "Check the database connections.",
    "Compare queue time with compute time, and check whether a replica is saturated.",
    "Restart a replica and watch the p95 latency.",
    "Increase the number of replicas.",
    "Reduce the batch size.",
    "Find the cause of the timeouts.",
    "Review the latest deployment.",
    "Raise the limit only after the tail is understood.",
    "Compare with the same hour of yesterday.",
    "Double-check the latest deployment.",
    "Plan a zero-downtime restart.",
    "Check whether requests were lost or an attacker floods the service.",
)
FALSE_ACTIONS = (
    ("Restart the database because it crashed.", "a cause stated as a fact"),
    ("Add 3 replicas.", "literal figure"),
    ("Add two replicas.", "number word"),
    ("The database is overloaded.", "a cause stated as a fact"),
)


@pytest.fixture
def facts(troubled: Aggregate) -> Facts:
    return read_facts(troubled, "1h")


@pytest.fixture
def status(facts: Facts) -> Status:
    return status_of(facts, run_checks(facts))


def _draft(summary: str = "See the findings.", *, action: str = "", evidence: list[Evidence] | None = None) -> Draft:
    advice = Recommendation(action=action, priority="low", rationale="It was asked for.", evidence=["e1"])
    return Draft(
        summary=summary,
        evidence=EVIDENCE if evidence is None else evidence,
        findings=[],
        recommendations=[advice] if action else [],
    )


def _reasons(refusals: list[Refusal]) -> list[str]:
    return [refusal.reason for refusal in refusals]


@pytest.mark.parametrize("sentence", TRUE)
def test_true_sentence__is_accepted(sentence: str, facts: Facts, status: Status) -> None:
    assert check_draft(_draft(sentence), facts, status) == []


@pytest.mark.parametrize(("sentence", "reason"), FALSE, ids=[sentence[:40] for sentence, _ in FALSE])
def test_planted_fault__is_refused_by_name(sentence: str, reason: str, facts: Facts, status: Status) -> None:
    assert reason in _reasons(check_draft(_draft(sentence), facts, status))


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("The label drift is {e1}, against the day before.", None),
        ("The label drift is {e1}, against the previous day.", None),
        ("The label drift is {e1}, against the week before.", "a time that was not measured"),
        ("The labels drifted: the label drift is {e1}.", None),
        ("There is label drift.", None),
        ("There is no length drift.", None),
        ("There is no sign of length drift.", None),
        ("No signs of label drift were found.", "none of what there is"),
        ("The texts may have drifted.", None),
        ("There is no drift.", "none of what there is"),
        ("The labels did not drift: the label drift is {e1}.", "none of what there is"),
        ("Nothing drifted.", "none of what there is"),
        ("Label drift is absent.", "none of what there is"),
        ("Drift remains low.", "none of what there is"),
        ("There is hardly any drift.", "none of what there is"),
        ("Length drift is negligible.", None),
        ("Length drift is severe.", "drift that was not measured"),
        ("Length drift was detected.", "drift that was not measured"),
        ("The length drift shows that texts drifted.", "drift that was not measured"),
        ("There is clear length drift.", "drift that was not measured"),
        ("The length drift is {e1}.", "reference under another metric's name"),
        ("The label drift rose to {e1}.", "direction against the data"),
        ("The label drift is 0.3.", "literal figure"),
        ("The pixel drift is {e1}.", None),  # a word that names no metric is only a word
    ],
)
def test_drift__is_claimed_as_it_was_measured(
    make_aggregate: MakeAggregate, make_drift: Callable[..., DriftReport], sentence: str, reason: str | None
) -> None:
    facts = read_facts(make_aggregate(), "1h", make_drift(labels=0.3))
    evidence = [Evidence(id="e1", metric="drift.labels", window="current")]
    reasons = _reasons(check_draft(_draft(sentence, evidence=evidence), facts, status_of(facts, run_checks(facts))))
    assert reasons == ([] if reason is None else [reason])


@pytest.mark.parametrize("word", ["visible", "via", "violated", "vital", "IDs", "VM", "LLM", "CDN", "DLQ", "DDoS"])
def test_word_that_begins_like_a_roman_numeral__is_none(word: str, facts: Facts, status: Status) -> None:
    refusals = check_draft(_draft(f"What is behind it: {word}."), facts, status)
    assert "number word" not in _reasons(refusals)


@pytest.mark.parametrize("numeral", ["VII", "vii", "XIV", "ix", "X", "MM"])
def test_roman_numeral__is_a_number_word(numeral: str, facts: Facts, status: Status) -> None:
    assert "number word" in _reasons(check_draft(_draft(f"What is behind it: {numeral}."), facts, status))


@pytest.mark.parametrize(
    "sentence", ["There is no drift.", "There is some drift.", "The labels show drift.", "The labels drifted."]
)
def test_drift_not_told__is_neither_claimed_nor_denied(sentence: str, facts: Facts, status: Status) -> None:
    assert len(check_draft(_draft(sentence), facts, status)) == 1


@pytest.mark.parametrize(
    ("summary", "is_true"),
    [
        ("The service is healthy, but a threshold is breached.", True),
        ("The status is healthy. The threshold on the share of rate-limited requests is breached.", True),
        ("The service is healthy. The share of rate-limited requests is {e1}, above its limit of {e2}.", True),
        ("The share of rate-limited requests exceeds its limit.", True),
        ("The service is healthy, but a threshold is breached, so a client may be retrying.", True),
        ("A threshold is breached, which may be the limiter working as designed.", True),
        ("The service is healthy.", False),
        ("The service is healthy and needs no work.", False),
        ("There were no timeouts, and the service is healthy.", False),
        ("The service is healthy. The error rate threshold is not breached.", False),
        ("The service is healthy. The error rate is below its limit.", False),
        ("The service is healthy, though a threshold may be breached.", False),
        ("Nothing is to be seen but a healthy service.", False),
        ("There is nothing to act on.", False),
        ("A threshold is breached, but there is nothing to act on.", False),
        ("A threshold is breached. No action is needed.", False),
        ("A threshold is breached, yet everything is fine.", False),
        ("Everything is within its limits.", False),
    ],
)
def test_breach_that_only_informs__is_told_where_the_service_is_called_healthy(
    make_aggregate: MakeAggregate, summary: str, is_true: bool
) -> None:
    limited = ThresholdRule(name="limited", metric="limited_rate", above=0.5, severity="info")
    errors = ThresholdRule(name="errors", metric="error_rate", above=0.05)
    states = (
        ThresholdState(rule=limited, current=0.8, breached=True),
        ThresholdState(rule=errors, current=0.0, breached=False),
    )
    facts = read_facts(make_aggregate(thresholds=states), "1h")
    status = status_of(facts, run_checks(facts))
    cited: dict[str, Reading] = {"e1": "current", "e2": "threshold"}
    evidence = [Evidence(id=name, metric="rule.limited", window=reading) for name, reading in cited.items()]
    assert status == "healthy"
    assert (check_draft(_draft(summary, evidence=evidence), facts, status) == []) == is_true


@pytest.mark.parametrize("action", TRUE_ACTIONS)
def test_instruction__may_name_what_it_does_not_claim(action: str, facts: Facts, status: Status) -> None:
    assert check_draft(_draft(action=action), facts, status) == []


@pytest.mark.parametrize(("action", "reason"), FALSE_ACTIONS)
def test_instruction_with_a_claim__is_refused(action: str, reason: str, facts: Facts, status: Status) -> None:
    assert reason in _reasons(check_draft(_draft(action=action), facts, status))


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (Evidence(id="e1", metric="gpu.util", window="current"), "unknown metric"),
        (Evidence(id="e1", metric="rule.p95-slow", window="previous"), "the metric has no such value"),
        (Evidence(id="x1", metric="requests", window="current"), "malformed or repeated id"),
    ],
)
def test_evidence_that_resolves_to_nothing__is_refused(
    evidence: Evidence, reason: str, facts: Facts, status: Status
) -> None:
    assert _reasons(check_draft(_draft(evidence=[evidence]), facts, status)) == [reason]


def test_id_given_twice__is_refused(facts: Facts, status: Status) -> None:
    assert _reasons(check_draft(_draft(evidence=[*EVIDENCE, EVIDENCE[0]]), facts, status)) == [
        "malformed or repeated id"
    ]


@pytest.mark.parametrize(("evidence", "reason"), [([], "no evidence"), (["e99"], "evidence that is not there")])
def test_finding_without_evidence__is_refused(evidence: list[str], reason: str, facts: Facts, status: Status) -> None:
    finding = Finding(title="Slow", severity="info", category="latency", detail="It is slow.", evidence=evidence)
    draft = _draft().model_copy(update={"findings": [finding]})
    assert _reasons(check_draft(draft, facts, status)) == [reason, reason]


def test_finding__rests_on_its_evidence_where_it_names_no_metric(facts: Facts, status: Status) -> None:
    finding = Finding(
        title="It got worse", severity="info", category="latency", detail="It is slower.", evidence=["e2"]
    )
    improved = finding.model_copy(update={"title": "It got better"})
    accepted = _draft().model_copy(update={"findings": [finding]})
    refused = _draft().model_copy(update={"findings": [improved]})
    assert check_draft(accepted, facts, status) == []
    assert _reasons(check_draft(refused, facts, status)) == ["direction against the data"]


def test_kind_of_failure_that_did_not_happen__may_be_called_absent(make_aggregate: MakeAggregate) -> None:
    facts = read_facts(make_aggregate(errors={"unavailable": 24}, error_rate=0.004), "1h")
    for sentence, is_true in {"There were no timeout errors.": True, "There were no errors.": False}.items():
        assert (check_draft(_draft(sentence, evidence=[]), facts, "healthy") == []) == is_true


def test_detail__may_speak_of_what_its_title_names(facts: Facts, status: Status) -> None:
    titles = {"The p95 latency": [], "The error rate": ["reference under another metric's name"]}
    for title, reasons in titles.items():
        finding = Finding(title=title, severity="info", category="latency", detail="It is {e1}.", evidence=["e1"])
        assert _reasons(check_draft(_draft().model_copy(update={"findings": [finding]}), facts, status)) == reasons


def test_refusal__tells_clients_the_place_and_never_the_words(facts: Facts, status: Status) -> None:
    (refusal,) = check_draft(_draft("Five replicas would answer."), facts, status)
    assert str(refusal) == "summary: number word"
    assert refusal.words == "Five"


# ---- labels: a model may call its classes anything


@pytest.mark.parametrize("label", ["POSITIVE", "LABEL_0", "down", "five", "healthy", "503", "requests"])
def test_label__may_be_any_word_where_it_is_quoted(label: str, make_aggregate: MakeAggregate) -> None:
    facts = read_facts(
        make_aggregate(labels=_shares(**{label: 900, "other": 100}), previous={"labels": _shares(other=1000)}), "1h"
    )
    share = Evidence(id="e1", metric=f"label_share.{label.lower()}", window="current")
    other = Evidence(id="e2", metric="label_share.other", window="current")
    true = _draft(f'The share of "{label}" rose to {{e1}}.', evidence=[share, other])
    assert check_draft(true, facts, "healthy") == []
    for lie, reason in (
        (f'The share of "{label}" fell to {{e1}}.', "direction against the data"),
        (f'The share of "{label}" is {{e2}}.', "reference under another metric's name"),
    ):
        assert reason in _reasons(check_draft(_draft(lie, evidence=[share, other]), facts, "healthy"))


def _shares(**counts: int) -> list[LabelShare]:
    return [LabelShare(label=label, count=n, share=n / sum(counts.values())) for label, n in counts.items()]


def test_text_that_is_too_long__is_refused_for_that_alone(facts: Facts, status: Status) -> None:
    endless = "degraded because " * 250_000  # of such, the other checks took a minute for fifteen kilobytes
    draft = _draft(endless, action=endless)
    assert _reasons(check_draft(draft, facts, status)) == ["too long", "too long"]


def test_more_evidence_than_a_report_has_figures__is_refused_for_that_alone(facts: Facts, status: Status) -> None:
    finding = Finding(title="Slow", severity="info", category="latency", detail="It is slow.", evidence=["e99"] * 61)
    assert _reasons(check_draft(_draft().model_copy(update={"findings": [finding]}), facts, status)) == ["too long"]
