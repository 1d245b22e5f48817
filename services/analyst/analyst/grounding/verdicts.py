"""The words the checker knows for claims about the whole: health, causes, hedges, things unmeasured; judges nothing."""

import re
from typing import Final

from analyst.grounding.lexicon import words

_WELL = r"well(?! (?:below|beneath|under|within|inside|above|over|beyond|past|short of|ahead of|into)\b)"
"""Not of a distance: "well below its limit" praises nothing."""
_TROUBLE = (
    r"(?:trouble|problem|issue|anomal|incident|degradation|distress|concern|error|failure|regression|slowdown)\w*"
)
HEALTHY: Final = words(
    r"healthy|nominal|all (?:is )?(?:good|well|fine)|nothing (?:is )?wrong",
    r"no (?:issues?|problems?|anomal\w+|concerns?)",
    r"no (?:action|intervention|attention|change)s? (?:is |are |was |were )?(?:needed|required|necessary|called for)",
    r"no (?:cause|reason|need) (?:for|to) (?:concern|alarm|worry|act|action)",
    rf"no signs? of (?:\w+ ){{0,2}}{_TROUBLE}|nothing of note|sl[ao]s? (?:is|are|was|were) met",
    r"nothing (?:is |was |looks |seems )?(?:unusual|abnormal|amiss|alarming|concerning|broken|critical)",
    r"nothing to (?:worry|fix|do|report|see|act|be concerned|improve)\w*|nothing stands out",
    r"(?:everything|performance|services?|systems?|latency|traffic|availability|quality|all|it|they|operations?|behaviou?r)"
    r" (?:is|are|looks?|was|were|remains?|remained|stays?|stayed|seems?|appears?)(?: (?!not\b)\w+){0,2}"
    rf" (?:normal|fine|good|ok|okay|{_WELL}|excellent|great|superb|outstanding|perfect|flawless|optimal|ideal|solid"
    r"|strong|robust|acceptable|satisfactory|impressive|reliable|available|(?<!than )expected(?! (?:to|that)\b)"
    r"|under control|in order|green)",
    r"(?:work|perform|behav|runn?|operat|function)(?:s|es|ed|ing|e)? (?:\w+ )?"
    rf"(?:as (?:it should|expected|intended|designed|usual|planned)|normally|fine|{_WELL}|smoothly|perfectly|flawlessly"
    r"|correctly|properly|reliably|nicely|without (?:\w+ )?(?:problem|issue|incident|trouble)s?)",
    r"operational|in (?:good|great|perfect|excellent|best) (?:shape|order|condition|health)|up and running",
    r"under control|business as usual|all (?:green|clear)|trouble-free|problem-free|as expected",
    r"meets? (?:all )?(?:its |the |every )?(?:expectations?|targets?|objectives?|goals?|slos?|slas?)",
    r"excellent|superb|flawless|impeccable|impressive",
    r"(?:great|outstanding|perfect|optimal|good) (?:performance|health|condition|service)",
)
STATUS_CLAIM: Final = re.compile(
    r"\b(?:service|system|status|performance|it)(?:'s| is| was| remains| looks) (healthy|degraded|critical)\b",
    re.IGNORECASE,
)
_DETERMINER = r"(?:the|its|their|this|that|these|those|a|an|any|all|both|each|every|no)\b"
LED: Final = re.compile(
    rf"(?:(?P<word>(?:\w+ (?:to|of|from)|(?!{_DETERMINER})[\w'-]+))\s+)?"
    rf"(?:{_DETERMINER}\s+(?:(?!{_DETERMINER})[\w-]+\s+){{0,2}})?$",
    re.IGNORECASE,
)
"""What leads to a limit: "below" of "below the configured limit"."""
NEAR: Final = words(r"(?:close|closer|near|nearer|next|up) to|near(?:s|ed|ing)?|approach\w*|towards?|almost|nearly")
LEADS_TO_LIMIT: Final = words(
    NEAR.pattern,
    r"below|beneath|under\w*|within|inside|against|of|with|for|on|about|than|respect\w*|keeps?|kept|meets?|met|has|have|had",
    r"(?:far|away|distance|headroom|margin|room|gap|compared|relative|short|value|\w+ing) (?:to|of|from)",
    r"above|over|exceed\w*|surpass\w*|breach\w*|violat\w*|which|whose|where|as|if|when|since|because|so|here|now|still",
    r"(?:window|hour)|(?:rais|lower|tighten|loosen|adjust|chang|review|configur|sett?)(?:es|ed|e|s|ing)?",
)
"""Of these words either none says that a limit was crossed, or other checks judge it."""
CROSSED: Final = words(
    r"cross\w*|pass(?:ed|es)|miss(?:ed|es)|hit|exceed\w*|reach\w*|broken?|breaks?|trip\w*|over(?:shot|run|stepped)",
    r"surpass\w*|exhausted|used up|blown|torn|lost|failed",
)
MODAL: Final = words(r"(?:may|might|could|would|should)(?! have\b)|whether|if")
"""What was measured is not guessed: only these excuse a word of direction, and not of the past."""
HEDGE: Final = words(
    r"may|might|could|would|possibl[ey]|perhaps|potential(?:ly)?|whether|if|hypothes[ie]s|suspected|consistent with",
    r"likely|probabl[ey]|presumably|plausibl[ey]|suggest\w*|seems?|appears?|points? to|hints? at",
)
IGNORANCE: Final = words(
    r"unknown|not (?:known|measured)|unclear|cannot (?:tell|say|show|be told|be known)",
    r"(?:does|do) not (?:show|tell|say|explain|reveal)|not (?:visible|shown|explained)",
)
ASSERTED_CAUSE: Final = words(
    r"because|due to|caus(?:ed|ing) by|caus(?:ed|es|ing)|as a result of|result(?:s|ed|ing)? (?:of|from|in)|owing to",
    r"thanks to|le(?:d|ads|ading) to|stem(?:s|med|ming)? from|driven by|responsible for|explain(?:s|ed)?|attribut\w+",
    r"trigger(?:s|ed)|comes? from|came from|trac(?:ed|es) (?:back )?to|the culprit|to blame",
)
STATUS_REASON: Final = re.compile(
    r"\b(?:degraded|critical)\b.* (?:because|due to|caused by) .*\b(?:breach|exceed|above|below)", re.IGNORECASE
)
"""Why the status is what it is may be said: checks decide it."""
NAMED_CAUSE: Final = words(r"(?:root )?causes?|reasons?")
DOWN_SERVICE: Final = re.compile(
    r"\b(?:services?|systems?|apis?|servers?|endpoints?|models?|sites?|platforms?)(?:"
    r"(?:'s| is| are| was| were| went| has gone)(?: \w+)?"
    r" (?:down|offline|unavailable|broken|dead|failing|compromised|unreachable|stuck|hung)"
    r"| (?:stopped|ceased|died|hangs?|hung|(?:does|did|do) not (?:respond|answer|work)"
    r"|(?:is|are|was|were) not (?:responding|answering|working)))\b",
    re.IGNORECASE,
)
UNMEASURED: Final = words(
    r"(?:data|records?|events?|messages?|predictions?|requests?|texts?) (?:\w+ ){1,3}"
    r"(?:lost|corrupt\w*|leaked|stolen|deleted|exposed|duplicated)",
    r"(?:los[st]|losing|corrupted|leaked|deleted) (?:\w+ )?(?:data|records?|events?|messages?|predictions?|texts?)",
    r"data (?:loss|leak\w*|breach\w*|corruption)|attackers?|attacked|under attack|ddos|denial[ -]of[ -]service",
    r"flood\w*|hack\w*|intru\w+|malicious\w*|exploit\w*|stolen|revenue|(?:un)?happy|satisfied|angry|customers?|complain\w*|downtime",
    r"(?:in)?accura(?:cy|te)|precision|recall|uptime|visitors?|cached|caches? (?:serv|answer|absorb)\w*",
    r"(?:models?|predictions?|answers?|labels?) (?:is|are|was|were) (?:\w+ )?(?:in)?correct",
)
"""Things of which no metric tells, as a guess either."""
HYPOTHESES: Final = {
    "saturation": words(
        r"saturat\w+|overload\w*|exhaust\w+|starv\w+|contention|replicas?|queu\w+|back ?log\w*|threads?"
    ),
    "resources": words(r"cpus?|gpus?|memory|disks?|ram|i/o|garbage collect\w+|noisy neighbou?rs?|throttl\w+|leak\w*"),
    "dependency": words(
        r"databases?|postgres\w*|redis|valkey|dependenc\w+|upstreams?|providers?|connection pools?|locks?"
    ),
    "network": words(r"networks?|dns|packets?|certificates?|proxies|proxy|load balancers?|outages?"),
    "change": words(r"deploy\w*|rollouts?|roll-?backs?|releases?|configurations?|bugs?|migrations?|new versions?"),
    "start": words(r"cold[- ]starts?|restart\w*|crash\w*|pods?|nodes?|containers?|kubernetes|warm-?ups?"),
    "inputs": words(r"(?:longer|larger|malformed) (?:texts?|inputs?|bodies)|tokeni\w+|batch\w*"),
    "clients": words(
        r"bursts?|retr(?:y|ies|ying)|bots?|crawlers?|attacks?|single client|few clients|misconfigured clients?"
    ),
}
