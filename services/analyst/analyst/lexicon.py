"""The words the checker knows: figures in disguise, directions, causes and hedges, each as one pattern; judges nothing.

English only: drafts are asked for in English, and a draft in another script is refused for its characters.
"""

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from common.contracts import Window


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b", re.IGNORECASE)


REFERENCE: Final = re.compile(r"\{(e[0-9]{1,3})\}")
SENTENCE_END: Final = re.compile(r"(?<=[.!?;])\s+")
CLAUSE_END: Final = re.compile(r"[,:;]|\b(?:while|whereas|but|and|although|though|yet)\b", re.IGNORECASE)

# ---- figures in disguise

_COUNTED = (
    r"percent\w*|per ?cent|times|in|out of|of|ms|milliseconds?|seconds?|minutes?|hours?|days?|weeks?"
    r"|requests?|errors?|predictions?|failures?|calls?|points?"
)
NUMBER_WORD: Final = _words(
    "zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen",
    "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|millions?|billions?",
    "dozens?|twice|thrice|double[ds]?|doubling|tripl(?:e[ds]?|ing)|quadrupl(?:e[ds]?|ing)|hal(?:f|ved?|ves|ving)",
    r"\w+fold|orders? of magnitude|couple of",
    r"(?:a|one|two|three)[ -](?:third|quarter|fifth|tenth)s?",
    rf"(?:by |to |at )?one (?:{_COUNTED})",
)
NOT_A_NUMBER: Final = _words(r"double-check\w*", r"third-part\w+", r"zero-downtime", r"one of (?:the|these|several)")
QUANTITY: Final = _words(
    r"(?:all|most|none|(?:the )?majority|nearly all|almost all|almost none)(?: of)?(?: the)?(?: \w+)?"
    r" (?:requests|predictions|errors|calls|answers|clients|users)"
)
NO_ERRORS: Final = _words(
    "no (?:errors|failures|failed requests)", "error-free", "without (?:any )?(?:errors|failures)"
)
NO_LIMITED: Final = _words(
    "no requests (?:were|are|have been) (?:rate[- ])?(?:limited|refused)", "no rate-limited requests"
)
NO_TRAFFIC: Final = _words("no (?:requests|traffic|predictions)(?! (?:failed|timed|were|are|have been))")

_UNITS = r"(?!\s*(?:%|ms\b|percent|milli|second|minute|request|error|prediction|failure|answer|call|time|per\b))"
_CODES = "|".join(str(status.value) for status in HTTPStatus)
STATUS_CODE: Final = re.compile(
    rf"\b(?:HTTP(?: status)?(?: code)?|status(?: code)?)s?\s+(?:{_CODES})\b(?!\.\d){_UNITS}|\b[1-5]xx\b", re.IGNORECASE
)
UNIT_AFTER_REFERENCE: Final = re.compile(
    r"\}\s*(?:%|(?:ms|percent|milliseconds?|seconds?|per second)\b)", re.IGNORECASE
)
METRIC_ID: Final = re.compile(r"\b[a-z]+(?:_[a-z0-9]+)+(?:\.[a-z0-9_]+)*\b|\b[a-z_]+\.[a-z][a-z0-9_]*\b")
PERCENTILE: Final = re.compile(r"\bp[0-9]+\b", re.IGNORECASE)
MARKUP: Final = re.compile(r"[<>`|\[\]\\]|https?:|www\.|[\x00-\x1f]")

WINDOW_WORDS: Final[dict[Window, str]] = {
    "5m": "5m|5 minutes|five minutes",
    "15m": "15m|15 minutes|fifteen minutes",
    "1h": "1h|60 minutes|1 hour|one hour|sixty minutes",
    "6h": "6h|6 hours|six hours",
    "24h": "24h|24 hours|twenty-four hours|1 day|one day",
    "7d": "7d|7 days|seven days|1 week|one week",
    "30d": "30d|30 days|thirty days",
}


LABEL_MASK: Final = "labelx"  # stands for a quoted label while prose is checked; a letter pair tells which


@lru_cache
def window_mention(window: Window) -> re.Pattern[str]:
    """The window by name where it can only mean the window: "the last 1h", "1h window"; never "was down for 1h"."""
    names = WINDOW_WORDS[window]
    return re.compile(
        rf"\b(?:last|past|previous|preceding|prior|latest|over|this|the)\s+(?:the\s+)?(?:{names})\b"
        rf"|\b(?:{names})(?:-long)?[ -]windows?\b",
        re.IGNORECASE,
    )


# ---- directions and comparisons

UP: Final = _words(
    r"increas\w+|rose|risen|ris(?:e|es|ing)|grew|grow(?:s|n|th|ing)?|higher|climb\w*|spik\w+|jump\w*|surg\w+|soar\w*",
    r"up(?= by\b| from\b|[.,;]|$)",
)
DOWN: Final = _words(
    r"decreas\w+|fell|fall(?:s|en|ing)?|drop(?:s|ped|ping)?|lower(?:ed|s)?|declin\w+|reduc\w+|shr[aiu]nk\w*|dip(?:s|ped)?",
    r"fewer|plung\w+|plummet\w*|down(?= by\b| from\b|[.,;]|$)",
)
WORSE: Final = _words(r"worse\w*|deteriorat\w+|regress\w+|slower|slow(?:ed|s) down|slowdown")
BETTER: Final = _words(r"better|improv\w+|recover\w+|faster|sp(?:ed|eeds) up|speedup")
FLAT: Final = _words(r"unchanged|stable|steady|flat|constant|did not change|barely (?:changed|moved)")
THAN_LIMIT: Final = re.compile(
    r"\b(higher|more|slower|worse|lower|less|faster) than (?:the |its |their )?(?:configured )?(?:limit|threshold)",
    re.IGNORECASE,
)
THAN_OTHER: Final = re.compile(
    r"\b(?:higher|lower|slower|faster|worse|better) than (?:the |its |their )?(?:median|mean|average|p[0-9]+)",
    re.IGNORECASE,
)
ABOVE: Final = _words(r"above|exceed\w*|over (?:the|its|their) (?:configured )?(?:limit|threshold)")
BELOW: Final = _words(r"below|under (?:the|its|their) (?:configured )?(?:limit|threshold)")
LIMIT: Final = _words(r"limits?|thresholds?")
BREACH: Final = _words(r"breach\w*|violat\w+")
WITHIN: Final = _words(r"within (?:all |their |its |the |every )*(?:configured )?(?:limits?|thresholds?)")
BY: Final = re.compile(r"\bby (?:about |around |roughly |some |almost |nearly )?$", re.IGNORECASE)
TO: Final = re.compile(r"\b(?:to|at|reach(?:ed|es|ing)?) (?:about |around |roughly )?$", re.IGNORECASE)
FROM_TO: Final = re.compile(r"\bfrom \{(e[0-9]{1,3})\} to \{(e[0-9]{1,3})\}", re.IGNORECASE)

NO_DRIFT: Final = _words(
    r"(?:no|without|free of|hardly any|little|negligible) (?:any )?(?:\w+ ){0,2}drift",
    r"(?:did|do|does|has|have) not drift(?:ed)?|nothing (?:has )?drifted|drift: none",
    r"drift (?:is|was|remains|stays) (?:absent|none|low|small|negligible)",
)
DRIFTED: Final = _words(
    r"drift(?:ed|s away|ing)",
    r"there is (?:\w+ ){0,2}drift",
    r"(?:shows?|showed|strong|clear|marked|severe) (?:\w+ )?drift",
    r"drift (?:is|was) (?:severe|high|strong|large|significant|clear|present|detected|found|seen)",
)

# ---- claims about the whole, and about causes

HEALTHY: Final = _words(
    r"healthy|nominal|all (?:is )?(?:good|well|fine)|nothing (?:is )?wrong",
    r"no (?:issues?|problems?|anomal\w+|concerns?)",
    r"(?:everything|performance|service) (?:is|looks|was) (?:normal|fine|good|ok|okay)",
)
STATUS_CLAIM: Final = re.compile(
    r"\b(?:service|system|status|performance|it)(?:'s| is| was| remains| looks) (healthy|degraded|critical)\b",
    re.IGNORECASE,
)
NEGATION: Final = re.compile(r"\b(?:no|not|never|none|nor|neither|without|cannot)\b|n't\b", re.IGNORECASE)
HEDGE: Final = _words(
    r"may|might|could|would|possibl[ey]|perhaps|potential(?:ly)?|whether|if|hypothes[ie]s|suspected|consistent with"
)
IGNORANCE: Final = _words(
    r"unknown|not known|unclear|cannot (?:tell|say|show|be told|be known)",
    r"(?:does|do) not (?:show|tell|say|explain|reveal)|not (?:visible|shown|explained)",
)
ASSERTED_CAUSE: Final = _words(
    r"because|due to|caus(?:ed|ing) by|caus(?:ed|es|ing)|as a result of|result(?:s|ed|ing)? (?:of|from|in)|owing to",
    r"thanks to|le(?:d|ads|ading) to|stem(?:s|med|ming)? from|driven by|responsible for|explain(?:s|ed)?|attribut\w+",
    r"trigger(?:s|ed)|comes? from|came from|trac(?:ed|es) (?:back )?to|the culprit|to blame",
)
NAMED_CAUSE: Final = _words(r"(?:root )?causes?|reasons?")
DOWN_SERVICE: Final = re.compile(
    r"\b(?:services?|systems?|apis?|servers?|endpoints?|models?|sites?|platforms?)"
    r"(?:'s| is| are| was| were| went| has gone)(?: \w+)?"
    r" (?:down|offline|unavailable|broken|dead|failing|compromised|unreachable|stuck|hung)\b",
    re.IGNORECASE,
)
HYPOTHESES: Final = {
    "saturation": _words(
        r"saturat\w+|overload\w*|exhaust\w+|starv\w+|contention|replicas?|queu\w+|back ?log\w*|threads?"
    ),
    "resources": _words(r"cpus?|gpus?|memory|disks?|ram|i/o|garbage collect\w+|noisy neighbou?rs?|throttl\w+|leak\w*"),
    "dependency": _words(
        r"databases?|postgres\w*|redis|valkey|dependenc\w+|upstreams?|providers?|connection pools?|locks?"
    ),
    "network": _words(r"networks?|dns|packets?|certificates?|proxies|proxy|load balancers?|outages?"),
    "change": _words(r"deploy\w*|rollouts?|roll-?backs?|releases?|configurations?|bugs?|migrations?|new versions?"),
    "start": _words(r"cold[- ]starts?|restart\w*|crash\w*|pods?|nodes?|containers?|kubernetes|warm-?ups?"),
    "inputs": _words(r"(?:longer|larger|malformed) (?:texts?|inputs?|bodies)|tokeni\w+|batch\w*"),
    "clients": _words(
        r"bursts?|retr(?:y|ies|ying)|bots?|crawlers?|attacks?|single client|few clients|misconfigured clients?"
    ),
}
IMPERATIVE: Final = re.compile(
    r"(?:first |then |also )?(?:add|adjust|alert|audit|cap|check|collect|compare|configure|confirm|consider|continue"
    r"|correlate|enable|examine|find|identify|increase|inspect|investigate|keep|limit|look|lower|measure|monitor|observe"
    r"|plan|profile|raise|reduce|repeat|restart|review|roll|route|rule out|scale|send|set|split|test|trace|track|tune"
    r"|verify|wait|watch|widen|double-check)\b",
    re.IGNORECASE,
)
SYNONYMS: Final = (
    # the most specific first: one mention is read once
    (r"label drift", ("drift.labels",)),
    (r"confidence drift", ("drift.confidence",)),
    (r"(?:text )?length drift", ("drift.length",)),
    (r"tail[- ]to[- ]median(?: ratio)?", ("latency_ms.tail_ratio",)),
    (r"p50(?: latency)?|median(?: latency)?", ("latency_ms.p50", "latency_ms.tail_ratio")),
    (r"p90(?: latency)?", ("latency_ms.p90",)),
    (r"p95(?: latency)?", ("latency_ms.p95",)),
    (r"p99(?: latency)?", ("latency_ms.p99", "latency_ms.tail_ratio")),
    (r"(?:mean|average) latency", ("latency_ms.mean",)),
    (r"max(?:imum)? latency|slowest \w+", ("latency_ms.max",)),
    (r"tail(?: latency)?", ("latency_ms.p95", "latency_ms.p99", "latency_ms.tail_ratio")),
    (r"latency|latencies|response times?", ("latency_ms.",)),
    (r"error rate|error share", ("error_rate",)),
    (r"rate[- ]limit(?:ed|ing)|limited|refus(?:ed|als)", ("limited_rate",)),
    (r"errors?|failures?|failed|outcomes?|timed out|time-?outs?", ("error_rate", "errors.")),
    (r"throughput", ("throughput_per_s",)),
    (r"requests?|traffic|volume|load", ("requests", "throughput_per_s", "predictions")),
    (r"predictions?", ("predictions", "throughput_per_s")),
    (r"confidence|scores?", ("confidence.mean",)),
)
