"""The words of a caption: what a vocabulary counts, and what a tokenizer of words splits a caption into."""

import re

_WORD = re.compile(r"\w+|[^\w\s]")


def words_of(caption: str) -> list[str]:
    """The words of a caption in their order, in lower case; a punctuation mark or an emoji is one of its own."""
    return _WORD.findall(caption.lower())
