"""Which kind of prompt a How We Swipe swipe comes from: a natural sentence or random words.

Half of that corpus's swipes come from sentences that people wrote ("what do you hear"), half from
words drawn at random ("fail while hexagon cove"). Models and decoders differ much between the two,
and rows do not say which it was. What the 61,112 training swipes show:

* prompts are lower case with no punctuation, so neither tells them apart;
* every prompt of three, five, six or seven words is shown to many writers, hence natural; every
  random prompt has four words and is shown to one writer;
* of the four-word prompts, the 40 that several writers saw are natural, 7,966 seen by one random.

Repetition needs the whole corpus, and a handful of swipes must be judged alike, so the rule is: a
prompt is random when it has exactly four words and fewer than two of them are function words.
Requiring two is what makes it work: random prompts hold function words too (284 of 7,966 have one,
one has two).

Error, against repetition: 141 of the 61,112 training swipes, nearly all of one sentence ("need to
watch closely": "need" is no function word here, and adding it would be fitting to the answer). Of
the 8,152 development swipes, on which the list of function words was tried too, 31, all of that
sentence: 0.4 %. Read by eye, 80 prompts drawn from the development set: one wrong, the same
sentence.
"""

from __future__ import annotations

from typing import Final

from swipe.gesture import Gesture

NATURAL: Final = "natural sentences"
RANDOM: Final = "random prompts"

_SOURCE: Final = "how_we_swipe"
_RANDOM_WORDS: Final = 4
_FUNCTION_TEXT: Final = """
i you he she it we they me him her us them my your his its our their im ive ill youre a an the
this that these those am is are was were be been being do does did have has had will would can
could should must may might not dont isnt to of in on at for with from by about and or but if so
as what whats why who how when where
"""
_FUNCTION_WORDS: Final = frozenset(_FUNCTION_TEXT.split())
"""Articles, pronouns, auxiliaries, prepositions, conjunctions and question words."""


def prompt_kind(gesture: Gesture) -> str:
    """`NATURAL`, `RANDOM`, or empty when unknown: of another corpus, or without its prompt."""
    if gesture.source != _SOURCE or not gesture.sentence:
        return ""
    words = gesture.sentence.lower().split()
    function_words = sum(word in _FUNCTION_WORDS for word in words)
    return RANDOM if len(words) == _RANDOM_WORDS and function_words < 2 else NATURAL
