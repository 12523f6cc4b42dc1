"""Counts in messages, in grammar: "1 segment is", "2 segments are", "1 of 3 segments is".

No message writes a number before a plural of its own: `tests/common/test_counts.py` reads them all.
"""

from __future__ import annotations

VERBS = {"is": "are", "has": "have", "was": "were", "does": "do"}


def counted(number: int, noun: str, verb: str = "", *, of: int | None = None) -> str:
    """Return a number with its noun, and a verb, in the singular or the plural.

    Parameters
    ----------
    number
        >= 0.
    noun
        In the singular, with adjectives before it; its plural ends in s or es.
    verb
        In the singular; agrees with `number`.
    of
        Of how many, if not all; the noun agrees with it.

    Examples
    --------
    >>> counted(1, "segment"), counted(2, "segment", "is"), counted(1, "class", "has", of=3)
    ('1 segment', '2 segments are', '1 of 3 classes has')
    """
    whole = number if of is None else of
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    words = [str(number), *([] if of is None else ["of", str(of)]), agree(whole, noun, plural)]
    return " ".join([*words, agree(number, verb, VERBS.get(verb, verb[:-1]))] if verb else words)


def agree(number: int, singular: str, plural: str) -> str:
    """Return the form of a word that agrees with a number.

    >>> agree(1, "its", "their"), agree(0, "its", "their")
    ('its', 'their')
    """
    return singular if number == 1 else plural
