"""The words the checker knows: figures in disguise, times, directions and limits, each as one pattern; judges nothing.

Those of health and causes are in `analyst.grounding.verdicts`.

English only: drafts are asked for in English, and a draft in another script is refused for its characters.
"""

import re
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from common.contracts.windows import Window


def words(*alternatives: str) -> re.Pattern[str]:
    """Any of the alternatives, as whole words."""
    return re.compile(rf"\b(?:{'|'.join(alternatives)})\b", re.IGNORECASE)


REFERENCE: Final = re.compile(r"\{(e[0-9]{1,3})\}")
SENTENCE_END: Final = re.compile(r"(?<=[.!?;])\s+")
CLAUSE_END: Final = re.compile(r"[,:;]|\b(?:while|whereas|but|and|although|though|yet)\b", re.IGNORECASE)

# ---- figures in disguise

_COUNTED = (
    r"percent\w*|per ?cent|times|in|out of|of|ms|milliseconds?|seconds?|minutes?|hours?|days?|weeks?"
    r"|requests?|errors?|predictions?|failures?|calls?|points?"
)
NUMBER_WORD: Final = words(
    "zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen",
    "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|millions?|billions?",
    "dozens?|twice|thrice|double[ds]?|doubling|tripl(?:e[ds]?|ing)|quadrupl(?:e[ds]?|ing)|hal(?:f|ved?|ves|ving)",
    r"trillions?|quadrillions?|\w+tupl(?:e[ds]?|ing)|\w+fold|orders? of magnitude|couple of|nil|minus|negative",
    r"fourth|fifth|sixth|seventh|eighth|ninth|tenth|\w+(?:teenth|tieth|dredth|sandth|llionth)s?",
    r"(?:a|one|two|three)[ -](?:third|quarter|fifth|tenth)s?",
    r"(?:single|lone|sole|only) (?:\w+ )?(?:requests?|errors?|predictions?|failures?|timeouts?|outcomes?|calls?)",
    rf"(?:by |to |at )?one (?:{_COUNTED})",
)
NOT_A_NUMBER: Final = words(r"double-check\w*", r"third-part\w+", r"zero-downtime", r"one of (?:the|these|several)")
ROMAN: Final = re.compile(
    r"\b(?=[IVXLCDM]{2}|[VXLCDM]\b)M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})(?<=[IVXLCDM])\b"
    r"|\b(?=[ivx]{2})x{0,3}(?:ix|iv|v?i{0,3})(?<=[ivx])\b"
)
NOT_ROMAN: Final = re.compile(r"\bCI/CD\b")
UNIT: Final = re.compile(
    r"[%$€£°]|\b(?:[mµun]s|msecs?|secs?|mins?|hrs?|(?:milli|micro|nano)seconds?|per ?cent|percentage points?|[kmgt]i?b"
    r"|(?:kilo|mega|giga|tera)?bytes?|[rq]ps|hz|dollars?|euros?)\b",
    re.IGNORECASE,
)
"""No unit is written: a figure is shown with its own."""
QUANTITY: Final = words(
    r"(?:all|most|none|(?:the )?majority|nearly all|almost all|almost none|every|each)(?: single)?(?: of)?(?: the)?"
    r"(?: \w+)? (?:requests?|predictions?|errors?|calls?|answers?|clients?|users?|callers?|responses?|texts?)",
    "nobody|no one|no-one|everybody|everyone|anybody|anyone|not a single",
    r"(?:always|never|constantly|invariably|permanently) (?:fail|tim|refus|succe|answer|work|serv|respond)\w*",
)
NO_TRAFFIC: Final = words(
    "no (?:requests|traffic|predictions)(?! (?:failed|timed|were|are|have been))",
    r"(?:requests|traffic|predictions|throughput) (?:\w+ )?(?:dried up|stopped|ceased)",
    r"(?:requests|traffic|predictions|throughput) (?:\w+ )?came to an? (?:halt|standstill|end)",
)

_UNITS = r"(?!\s*(?:%|ms\b|percent|milli|second|minute|request|error|prediction|failure|answer|call|time|per\b))"
_CODES = "|".join(str(status.value) for status in HTTPStatus)
STATUS_CODE: Final = re.compile(
    rf"\b(?:HTTP(?: status)?(?: code)?|status(?: code)?)s?\s+(?:{_CODES})\b(?!\.\d){_UNITS}|\b[1-5]xx\b", re.IGNORECASE
)
METRIC_ID: Final = re.compile(r"\b[a-z]+(?:_[a-z0-9]+)+(?:\.[a-z0-9_]+)*\b|\b[a-z_]+\.[a-z][a-z0-9_]*\b")
PERCENTILE: Final = re.compile(r"\bp[0-9]+\b", re.IGNORECASE)
MARKUP: Final = re.compile(r"[<>`|\[\]\\]|https?:|www\.|[\x00-\x1f]")

WINDOW_WORDS: Final[dict[Window, str]] = {
    "5m": "5m|5 minutes|five minutes",
    "15m": "15m|15 minutes|fifteen minutes",
    "1h": "1h|60 minutes|1[ -]hour|one hour|hour|sixty minutes",
    "6h": "6h|6 hours|six hours",
    "24h": "24h|24 hours|twenty-four hours|1[ -]day|one day|day",
    "7d": "7d|7 days|seven days|1[ -]week|one week|week",
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


@lru_cache
def reference_mention(window: Window) -> re.Pattern[str]:
    """What drift is measured against, by its length: "the day before", "the previous week"."""
    names = WINDOW_WORDS[window]
    return re.compile(
        rf"\b(?:{names}) (?:before|earlier)\b|\b(?:previous|preceding|prior|reference) (?:{names})\b", re.IGNORECASE
    )


TIME: Final = words(
    r"seconds|(?:a|per|each|every|last|this|whole|full|split)[ -]second|minutes?|hours?|days?|weeks?|months?|years?",
    r"quarters?|decades?|century|centuries|fortnights?|weekends?|hourly|daily|nightly|weekly|monthly|yearly|annual\w*",
    r"yesterday|today|tonight|tomorrow|overnight|mornings?|afternoons?|evenings?|nights?|noon|midnight|ago",
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?|january|february|april|june|july|august|september|october|november",
    r"december|(?-i:March)|christmas|winter|summer|autumn|ever|never been|all[- ]time|unprecedented|rock bottom",
    r"record (?:high|low|level)s?|(?:its|the|an?) (?:highest|lowest|best|worst)|peaked",
    r"a (?:new )?record|at (?:its|their) peak",
)
PER_SECOND: Final = re.compile(r"\b(?:requests|predictions|answers) (?:per|a|each) second\b", re.IGNORECASE)
BEFORE: Final = words(
    r"from|before|previous\w*|prior|preceding|earlier|against|compared|versus|vs|than|had been|used to"
)
IN_THE_WINDOW_BEFORE: Final = re.compile(
    r"(?<!than )\b(?:in|during|over) the (?:(?:previous|prior|preceding)\b|(?:window|hour|day|week) before\b)",
    re.IGNORECASE,
)

# ---- beside a reference

TOUCHED: Final = re.compile(
    r"""[^\s("]\{e[0-9]{1,3}\}|\{e[0-9]{1,3}\}[^\s.,;:!?)"]|[-+−±~<>=≈*/^#]\s*\{e[0-9]{1,3}\}|\{e[0-9]{1,3}\}\s*[-+−*/^=]\s"""
)
AFTER_FIGURE: Final = words(
    r"and|or|but|yet|while|whereas|although|though|as|than|then|so|if|when|where|which|that|who|because|due|after|before",
    r"with|within|without|in|on|at|by|to|for|from|over|under|above|below|beyond|against|versus|vs|across|among|between",
    r"during|near|off|compared|relative|is|are|was|were|be|been|has|have|had|does|do|did|may|might|could|would|can|will",
    r"remains?|stays?|stands?|means?|shows?|suggests?|indicates?|exceeds?|exceeded|exceeding|breach\w*|lies|sits|marks",
    r"this|these|it|its|their|they|the|a|an|there|here|not|no|now|still|already|also|only|just|even|again|alone|apart",
    r"more|less|fewer|higher|lower|slower|faster|greater|larger|smaller|longer|shorter|worse|better|up|down|\w+ly",
    r"increases?|decreases?|rises?|drops?|falls?|declines?|growth|reduction|improvement|deterioration|changes?|jumps?",
    r"spikes?|limits?|thresholds?|values?|figures?|levels?|shares?|rates?|ratios?|latency|throughput|median|mean|average",
    r"p[0-9]+|tail|error|confidence|drift|measured|seen|recorded|observed|reported",
)
"""Words that neither count nor measure. "error" is of "error rate"."""

# ---- directions and comparisons

UP: Final = words(
    r"increas\w+|rose|risen|ris(?:e|es|ing)|grew|grow(?:s|n|th|ing)?|higher|climb\w*|spik\w+|jump\w*|surg\w+|soar\w*",
    r"(?:sky)?rocket\w*|balloon\w*|explod\w+|multipl(?:y|ies|ied|ying)|escalat\w+|inflat\w+|swell\w*|swollen|mounting",
    r"shot up|shoots? up|elevated|upward\w*|uptick|expanded|lengthened|widened|gained|amplified|intensif\w+",
    r"added|larger|went up|bigger|longer|greater|up(?= by\b| from\b| to\b| \{|[.,;]|$)",
)
DOWN: Final = words(
    r"decreas\w+|fell|fall(?:s|en|ing)?|drop(?:s|ped|ping)?|lower(?:ed|s)?|declin\w+|reduc\w+|shr[aiu]nk\w*|dip(?:s|ped)?",
    r"fewer|plung\w+|plummet\w*|cut(?:s|ting)?|slash\w*|crumbl\w*|diminish\w*|dwindl\w+|collaps\w+|tumbl\w+|s[aiu]nk\w*",
    r"slump\w*|slid(?:es?|ing)?|shed(?:s|ding)?|trimmed|curbed|contracted|eas(?:ed|es|ing)|ebb\w*|evaporat\w+|vanish\w*",
    r"disappear\w*|nosediv\w+|wan(?:ed|es|ing)|weaken\w*|subsid\w+|retreat\w*|taper\w*|soften\w*|downward\w*|downtick",
    r"shorten\w*|narrowed|smaller|shorter|went down|down(?= by\b| from\b| to\b| \{|[.,;]|$)",
)
WORSE: Final = words(
    r"worse\w*|deteriorat\w+|regress\w+|slower|slow(?:ed|s|ing)?(?: down)|slowed|slowdown|degrad(?:es|ing|ation)|poorer"
)
BETTER: Final = words(
    r"better|improv\w+|recover\w+|faster|quicker|sp(?:ed|eeds) up|speedup|healthier|optimi[sz]ed|rebound\w*"
)
FLAT: Final = words(
    r"unchanged|stable|steady|flat|constant|did not change|barely (?:changed|moved)|stabili[sz]\w+|plateau\w*",
    r"no change|(?:stay(?:s|ed)|remain(?:s|ed)|held|holds) (?:at|the same)|the same as|level(?:s|led)? off",
)
CHANGE: Final = words(r"chang\w+|differ\w*|delta|shift\w*|mov(?:e[ds]?|ement|ing)")
"""Says that something changed and not which way: the figure's own sign does."""
THAN_LIMIT: Final = re.compile(
    r"\b(higher|more|slower|worse|greater|larger|longer|lower|less|faster|smaller|shorter)"
    r" than (?:the |its |their )?(?:configured )?(?:limit|threshold)",
    re.IGNORECASE,
)
THAN_OTHER: Final = re.compile(
    r"\b(?:higher|lower|slower|faster|worse|better|greater|larger|longer|smaller|shorter)"
    r" than (?:the |its |their )?(?:median|mean|average|p[0-9]+)",
    re.IGNORECASE,
)
ABOVE: Final = words(r"above|exceed\w*|surpass\w*|over (?:the|its|their) (?:configured )?(?:limit|threshold)")
BELOW: Final = words(r"below|beneath|undercut\w*|under (?:the|its|their) (?:configured )?(?:limit|threshold)")
LIMIT: Final = words(r"(?:(?<!rate[ -])|(?<=error[ -]rate[ -]))limits?|thresholds?")
BREACH: Final = words(r"breach\w*|violat\w+|alerts?(?! (?:threshold|limit|rule|level)s?\b)|alarms?|fir(?:es|ed|ing)")
"""An alert fires where a threshold is breached."""
WITHIN: Final = words(r"within (?:all |their |its |the |every )*(?:configured )?(?:limits?|thresholds?)")
BY: Final = re.compile(r"\bby (?:about |around |roughly |some |almost |nearly )?$", re.IGNORECASE)
TO: Final = re.compile(r"\b(?:to|at|reach(?:ed|es|ing)?) (?:about |around |roughly )?$", re.IGNORECASE)
FROM_TO: Final = re.compile(r"\bfrom \{(e[0-9]{1,3})\} to \{(e[0-9]{1,3})\}", re.IGNORECASE)

NO_DRIFT: Final = words(
    r"(?:no|without|free of|hardly any|little|negligible) (?:any )?(?:\w+ ){0,3}drift",
    r"(?:did|do|does|has|have) not drift(?:ed)?|nothing (?:has )?drifted|drift: none",
    r"drift (?:is|was|remains|stays) (?:absent|none|low|small|negligible)",
)
DRIFTED: Final = words(
    r"drift(?:ed|s away|ing)",
    r"there is (?:\w+ ){0,2}drift",
    r"(?:shows?|showed|strong|clear|marked|severe) (?:\w+ )?drift",
    r"drift (?:is|was) (?:severe|high|strong|large|significant|clear|present|detected|found|seen)",
)

# ---- what a sentence does

NEGATION: Final = re.compile(r"\b(?:no|not|never|none|nor|neither|without|cannot)\b|n't\b", re.IGNORECASE)
IMPERATIVE: Final = re.compile(
    r"(?:first |then |also )?(?:add|adjust|alert|audit|cap|check|collect|compare|configure|confirm|consider|continue"
    r"|correlate|enable|examine|find|identify|increase|inspect|investigate|keep|limit|look|lower|measure|monitor|observe"
    r"|plan|profile|raise|reduce|repeat|restart|review|roll|route|rule out|scale|send|set|split|test|trace|track|tune"
    r"|verify|wait|watch|widen|double-check)\b",
    re.IGNORECASE,
)
REFERS_BACK: Final = re.compile(
    r"(?:(?:and|but|so|yet|now|still|then|also|before|previously|earlier|over|in|during|against|at|from|up|down|the|this"
    r"|last|past|previous|prior|window|hour|\{e[0-9]{1,3}\})[ ,]+)*"
    r"(?:it|its|they|their|these|this|that|\{e[0-9]{1,3}\}"
    r"|(?:the )?(?:limit|threshold|change|increase|rise|growth|decrease|drop|fall|decline|difference)s?)\b",
    re.IGNORECASE,
)
"""Begins a sentence whose figures may be of what the sentence before named."""
SYNONYMS: Final = (
    # besides the names of facts; the most specific first: one mention is read once
    (r"label drift", ("drift.labels",)),
    (r"confidence drift", ("drift.confidence",)),
    (r"(?:text )?length drift", ("drift.length",)),
    (r"drift", ("drift.",)),
    (r"tail[- ]to[- ]median(?: ratio)?|tail[- ]ratio", ("latency_ms.tail_ratio",)),
    (r"p50(?: latency)?|median(?: latency)?", ("latency_ms.p50", "latency_ms.tail_ratio")),
    (r"p90(?: latency)?", ("latency_ms.p90",)),
    (r"p95(?: latency)?", ("latency_ms.p95",)),
    (r"p99(?: latency)?", ("latency_ms.p99", "latency_ms.tail_ratio")),
    (r"average latency", ("latency_ms.mean",)),
    (r"max(?:imum)? latency|slowest \w+", ("latency_ms.max",)),
    (r"tail(?: latency)?", ("latency_ms.p95", "latency_ms.p99", "latency_ms.tail_ratio")),
    (r"latency|latencies|response times?", ("latency_ms.",)),
    (r"error share", ("error_rate",)),
    (r"rate[- ]limit(?:s|ed|ing)?|limited|refus(?:ed|als)", ("limited_rate",)),
    (r"tim(?:ed|es|ing) out|time-?outs?", ("errors.timeout",)),
    (r"errors?|failures?|failed|outcomes?", ("error_rate", "errors.")),
    (r"requests?|traffic|volume|load", ("requests", "throughput_per_s", "predictions")),
    (r"predictions?|answer(?:s|ed)?", ("predictions", "throughput_per_s")),
    (r"confidence|scores?", ("confidence.mean",)),
)
