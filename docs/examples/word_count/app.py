"""The map step of a word count: called once for each piece of a large text. Needs the standard library alone."""

import re
from collections import Counter

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def handler(event, context):
    words = Counter(word.lower() for word in WORD.findall(event["text"]))
    return {"words": words.total(), "different": len(words), "top": words.most_common(event.get("top", 5))}
