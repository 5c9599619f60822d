"""Answers of VQA v2 as they are normalised, scored and counted into an answer table.

Sources: the official evaluation (Antol et al. 2015, section 3), and the soft scores of the bottom-up-attention models
(Teney et al. 2018), whose answer list LXMERT took over.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from lxmert_tf.answers import AnswerTable

MIN_COUNT = 9  # questions that must have an answer
SCORES = (0.0, 0.3, 0.6, 0.9, 1.0)  # of an answer that so many of the annotators gave, or more

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
COMMA_IN_NUMBER = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"\.(?!\d)")
ARTICLES = frozenset({"a", "an", "the"})
NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(NUMBER_WORDS.split())}}
# But for those that without their apostrophe are words of their own: its, were, well, ill, id, hell, shell, shed, wed.
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd've it'll let's ma'am might've mightn't mightn't've must've mustn't
    needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'll somebody's
    someone'll someone's something'll that'd've that's there'd there'd've there're there's they'd they'd've they'll
    they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's
    where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all
    y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# Without one of its apostrophes -> with it
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in CONTRACTED.split()
    for place, mark in enumerate(word)
    if mark == "'"
}


def normalize_vqa_answer(text: str) -> str:
    """The form in which answers of VQA v2 are counted.

    Punctuation becomes a space, or nothing where it stands beside a space or the text has a number with a comma; full
    stops but those before a digit, commas and articles are dropped; the rest is in lower case, with digits for "none"
    and "zero" to "ten" and apostrophes in contractions. "The two, please." gives "2 please".
    """
    answer = text
    no_space = COMMA_IN_NUMBER.search(text) is not None
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        answer = answer.replace(mark, "" if no_space or beside_space else " ")
    words = FULL_STOP.sub("", answer).lower().split()
    numbered = (NUMBERS.get(word, word) for word in words)
    kept = (word for word in numbered if word not in ARTICLES)
    return " ".join(CONTRACTIONS.get(word, word) for word in kept).replace(",", "")


def soft_score(annotators: int) -> float:
    """The score in 0..1 of an answer that so many of the ten annotators gave."""
    return SCORES[min(annotators, len(SCORES) - 1)]


def answer_table(counts: Mapping[str, int], min_count: int) -> AnswerTable:
    """The answers that at least `min_count` questions have, the most frequent first.

    Raises:
        ValueError: there is none.
    """
    kept = [answer for answer, count in counts.items() if count >= min_count]
    if not kept:
        most = max(counts.values(), default=0)
        raise ValueError(
            f"no answer is that of {min_count} questions or more (the most frequent is that of {most}); "
            "lower min_count (--min-count)"
        )
    return AnswerTable(sorted(kept, key=lambda answer: (-counts[answer], answer)))


def soft_scores(answers: Iterable[str]) -> dict[str, float]:
    """The score of each answer to one question, in the order in which they come; one answer of each annotator."""
    return {answer: soft_score(count) for answer, count in Counter(answers).items()}
