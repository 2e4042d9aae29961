"""What is counted beside right and wrong: loops, doubts, the prefix block."""

from hypothesis import given
from hypothesis import strategies as st

from palign.behaviour import describe, loops
from palign.prompts import BEGIN, END

words = st.lists(st.sampled_from(["so", "we", "add", "7", "=", "x", "."]), max_size=60).map(" ".join)


@given(words, st.integers(1, 30), st.integers(2, 5))
def test_a_text_said_often_enough_is_a_loop(text, n, times):
    tokens = len(text.split())
    if tokens:
        assert loops(f"{text} " * (times + n // tokens + 1), n, times)


@given(words)
def test_a_text_of_distinct_lines_is_no_loop(text):
    assert not loops(
        " ".join(f"{word} {'abcdefghij'[i % 10]}{'klmnopqrst'[i // 10]}" for i, word in enumerate(text.split()))
    )


def test_a_run_of_digits_without_end_is_a_loop():
    """0.333... to the token limit is one word, and still a loop."""
    assert loops("0." + "3" * 400) and loops("a" * 2000)


def test_restating_a_line_a_few_times_is_no_loop():
    assert not loops("We substitute x + 2 y = 7 into the second equation and find y = 3 . " * 4)


def test_doubts_are_counted_as_words_not_as_parts_of_words():
    text = "Wait, hmm. Hold on: waiting for the holder, they hold. Actually 5."
    assert describe(text)["doubts"] == 4 and describe(text)["words"] == 11
    assert describe("")["words"] == 0


def test_the_prefix_block():
    assert describe(f"{BEGIN}a{END}b")["format"] and not describe(f"{BEGIN}a{END}b")["unclosed"]
    assert describe(f"{BEGIN}a, and on and on")["unclosed"]
    assert not describe(f"Well: {BEGIN}a{END}b")["format"]
    assert not describe("no block at all")["unclosed"]
