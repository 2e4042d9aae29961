"""Sentences by the released rule, and the oracle counted in them."""

from hypothesis import given
from hypothesis import strategies as st

from palign.traces import RULES, Trace, join, split, split_reversibly, sufficient_sentences


def test_the_released_rule_as_documented():
    assert split("Add two. Now five. Done") == ["Add two.", "Now five.", "Done."]


def test_decimals_and_questions_do_not_end_a_sentence_by_this_rule():
    assert split("Take 3.14. Why? Because. ") == ["Take 3.14.", "Why? Because."]


def test_empty_and_blank_text_has_no_sentence():
    assert split("") == split("  \n ") == []


@given(st.lists(st.text("ab ,?", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=8))
def test_joining_the_sentences_of_plain_text_gives_it_back(parts):
    text = " ".join(f"{part}." for part in parts)
    assert join(split(text)) == text


@given(st.text("ab. \n"))
def test_every_sentence_is_stripped_and_ends_in_a_full_stop(text):
    for sentence in split(text):
        assert sentence == sentence.strip() and sentence.endswith(".")


def test_oracle_is_the_fewest_sentences_that_reach_its_length():
    trace = Trace("1", "q", "a", "One. Two. Three.", sufficient_chars=len("One. Two."))
    assert sufficient_sentences(trace) == 2
    assert sufficient_sentences(Trace("1", "q", "a", "One. Two.")) is None


HARD = r"""Okay, so e.g. $x = 3.14$ vs. 2.5. Let f(x) = \frac{a.b}{c}. Wait... is it? Yes! (Dr. A. Smith says so.) Hmm.

\[ x^2 + 1 = 0. \]
1. First: `print("a. b")`. 2. Then ```python
x = 1.  # one. two
```
Naïve café… “Quoted.” Then 中文。 Done  """


@given(st.one_of(st.text(), st.text("aA1 .!?\n\t)\"'$\\"), st.just(HARD)))
def test_the_reversible_rule_loses_nothing(text):
    """The released rule eats white space and adds full stops, so its prefix is not a prefix of the trace."""
    pieces = split_reversibly(text)
    assert "".join(pieces) == text and all(pieces)


def test_the_reversible_rule_cuts_where_a_reader_would():
    sentences = [piece.strip() for piece in split_reversibly(HARD)]
    assert sentences[:6] == [
        "Okay, so e.g. $x = 3.14$ vs. 2.5.",
        r"Let f(x) = \frac{a.b}{c}.",
        "Wait...",
        "is it?",
        "Yes!",
        "(Dr. A. Smith says so.)",
    ]
    assert r"\[ x^2 + 1 = 0. \]" in sentences and "“Quoted.”" in " ".join(sentences)


def test_the_oracle_is_counted_in_the_rules_own_sentences():
    trace = Trace("1", "q", "a", "One! Two. Three.", sufficient_chars=len("One! "))
    assert sufficient_sentences(trace, RULES["reversible"]) == 1
    assert sufficient_sentences(trace) == 1 and split(trace.trace)[0] == "One! Two."
