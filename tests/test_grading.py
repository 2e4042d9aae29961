"""Only its last box makes a response right, and no response can stop the grader."""

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign import grading
from palign.grading import Grade, grade, grade_all, last_box


def equal(answer: str, gold: str) -> bool:
    """Whether a boxed answer is graded right."""
    return grade(rf"\boxed{{{answer}}}", gold, lenient=False).right


# balanced by construction: escaped braces may stand anywhere, plain ones only in pairs
plain = st.lists(st.sampled_from(["1", "x", " ", "\n", r"\{", r"\}", r"\frac", r"\\"]), max_size=5).map("".join)
balanced = st.recursive(
    plain, lambda inner: st.tuples(plain, inner, plain).map(lambda t: f"{t[0]}{{{t[1]}}}{t[2]}"), max_leaves=4
)
texts = st.lists(
    st.sampled_from([r"\boxed{", r"\fbox {", r"\boxed", "boxed{", "{", "}", r"\{", r"\}", "\\", "\\\\", "7", " "]),
    max_size=14,
).map("".join)
numbers = st.integers(-(10**30), 10**30)


def depth(text: str) -> int | None:
    """Open braces at the end of ``text``; ``None`` if one closes that was never opened."""
    open_braces = 0
    for brace in re.findall(r"[{}]", re.sub(r"\\.", "", text, flags=re.DOTALL)):
        open_braces += 1 if brace == "{" else -1
        if open_braces < 0:
            return None
    return open_braces


# -- the box ----------------------------------------------------------------------------------------------------------


@given(before=texts, content=balanced, name=st.sampled_from(["boxed", "fbox  "]))
def test_a_balanced_box_at_the_end_is_found_whole(before, content, name):
    """Whatever came before: boxes left open, stray braces, a line break."""
    assert last_box(f"{before}\\{name}{{{content}}}") == content


@given(texts)
def test_what_is_found_is_balanced_and_stands_in_a_box(text):
    found = last_box(text)
    if found is None:
        assert not re.search(r"\\boxed\{[^{}\\]*\}", text)
    else:
        assert depth(found) == 0
        assert re.search(r"(boxed|fbox)\s*\{" + re.escape(found) + r"\}", text)


@given(texts, st.text("ab .", max_size=5))
def test_words_after_the_last_box_change_nothing(text, after):
    assert last_box(f"{text} {after}") == last_box(f"{text} ")


@given(balanced, st.sampled_from(["", "{", r"\boxed{", r"\frac{1"]))
def test_a_box_that_was_cut_off_gives_way_to_the_last_that_closed(content, cut):
    """Half of a trained model's responses can end at the token limit, some of them inside a box."""
    assert last_box(rf"\boxed{{{content}}} and so \boxed{{4{cut}") == content


def test_of_nested_boxes_the_outermost_counts():
    assert last_box(r"\boxed{1 + \boxed{2} + \fbox{3}}") == r"1 + \boxed{2} + \fbox{3}"
    assert last_box(r"\boxed{1 + \boxed{2} + ") == "2"


def test_escaped_braces_are_text():
    assert last_box(r"\boxed{\{1, 2\}}") == r"\{1, 2\}"
    assert last_box(r"\boxed{x \} y}") == r"x \} y"
    assert last_box(r"\boxed{a \\{b}}") == r"a \\{b}"


def test_a_box_after_a_line_break_or_escaped_twice_is_found():
    assert last_box(r"x = 5 \\\boxed{5}") == "5"
    assert last_box(r"\\boxed{5}") == "5"


@pytest.mark.parametrize("text", ["", "boxed{5}", r"\boxed 5", r"\boxedx{5}", r"\boxed{5", r"\mbox{5}"])
def test_no_box(text):
    assert last_box(text) is None


@pytest.mark.parametrize(
    "unit", ["\\boxed{", "\\boxed{1", "\\boxed{{", "{", "}", "\\", "\\boxed", "\\boxed ", "\\boxed{1}", "\\boxed{}}"]
)
def test_time_is_linear(unit):
    """A search that restarts at every box takes minutes on a response that repeats them."""
    text = unit * (300_000 // len(unit))
    start = time.process_time()
    last_box(text)
    last_box("\\boxed" + " " * 300_000)
    assert time.process_time() - start < 1


# -- equality ---------------------------------------------------------------------------------------------------------


@given(numbers, st.integers(0, 3), st.integers(0, 3), st.sampled_from(["", ".", ".0", ".000"]))
def test_a_whole_number_equals_itself_however_it_is_written(number, zeros, spaces, tail):
    """AIME golds come zero-padded ("025"), AMC golds as floats (142.0)."""
    written = f"{'-' if number < 0 else ''}{'0' * zeros}{abs(number)}{tail}{' ' * spaces}"
    assert equal(written, str(number)) and equal(str(number), written)


@given(numbers, numbers)
def test_whole_numbers_are_equal_only_as_numbers(a, b):
    assert equal(str(a), f"{b}.0") == (a == b)


def test_numbers_beyond_every_limit_are_compared_not_refused():
    """Python refuses to read an integer of more than 4,300 digits; a looping response may box one."""
    assert equal("1" * 5000, "0" + "1" * 5000)
    assert not equal("1" * 5000, "1" * 4999 + "2")


@settings(max_examples=25, deadline=None)
@given(st.integers(-50, 50), st.integers(1, 50), st.integers(1, 5))
def test_a_fraction_equals_its_expansions(numerator, denominator, factor):
    answer = rf"\frac{{{numerator * factor}}}{{{denominator * factor}}}"
    assert equal(answer, rf"\frac{{{numerator}}}{{{denominator}}}")
    assert not equal(answer, rf"\frac{{{numerator + 1}}}{{{denominator}}}")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"\dfrac12", "0.5"),
        (r"2\sqrt{2}", r"\sqrt{8}"),
        ("1,234", "1234"),
        (r"(x+1)^2", "x^2 + 2x + 1"),
        (r"\{2, 1\}", r"\{1, 2\}"),
        ("x = 3", "3"),
        (r"\text{Tuesday}", r"\text{Tuesday}"),
    ],
)
def test_equal_in_mathematics_though_not_in_letters(answer, gold):
    assert equal(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [("0.51", r"\frac12"), ("(1, 2)", "(2, 1)"), ("[0, 1)", "(0, 1)"), ("x + 1", "x - 1"), ("", ""), (" ", "7")],
)
def test_unequal(answer, gold):
    assert not equal(answer, gold)


@pytest.mark.parametrize(
    "gold",
    [r"$\frac{3}{4}$", r"The share is $\frac{3}{4}$.", r"\(\frac{3}{4}\)", r"Of 12 we keep 9, so \boxed{\frac{3}{4}}."],
)
def test_a_gold_may_be_a_text_that_holds_the_answer(gold):
    """The training set's golds are full solutions in places."""
    assert equal("0.75", gold) and not equal("0.7", gold)


@pytest.mark.parametrize("gold", [r"First \boxed{9}; corrected, \boxed{10}.", "With $x = 9$ the answer is $10$"])
def test_of_several_candidates_in_a_gold_the_last_is_the_answer(gold):
    assert equal("10", gold) and not equal("9", gold)


# -- the workers -------------------------------------------------------------------------------------------------------

HOSTILE = {
    "a tower of exponents": "9^{9^{9^{9^9}}}",
    "a huge factorial": "(10^9)!",
    "a sum of a hundred thousand characters": "1+" * 50_000 + "1",
    "braces five thousand deep": "{" * 5_000 + "1" + "}" * 5_000,
    "fractions three thousand deep": r"\frac{1}{" * 3_000 + "1" + "}" * 3_000,
    "a sum that never simplifies": r"\sum_{n=1}^{10^{12}} \frac{1}{n^2+n+1}",
    "a power of thousands of terms": "(x+y+z)^{3000}",
}


@pytest.mark.model
def test_hostile_answers_cost_their_limit_and_never_the_run():
    """One response of a looping model kept sympy busy for hours, and SIGALRM does not reach it in a thread."""
    texts = [rf"\boxed{{{content}}}" for content in HOSTILE.values()] + [r"\boxed{7 + x}"]
    start = time.monotonic()
    grades = grade_all(texts, ["x + 7"] * len(texts), limit=3, workers=4)
    assert [g.outcome for g in grades] == ["timed out"] * len(HOSTILE) + ["right"]
    assert [g.lenient for g in grades] == ["timed out"] * len(HOSTILE) + ["right"]
    assert time.monotonic() - start < 120  # fourteen limits, and as many new workers, on a busy machine
    assert grade(r"\boxed{7 + x}", "x + 7").right


def worker(limit=10.0):
    found = grading._Worker()
    assert found.ask(r"\boxed{x + 1}", "1 + x", limit) == "right"
    return found


def test_a_killed_worker_is_replaced():
    """The kernel kills what takes the machine's last memory, and it may be a worker."""
    one = worker()
    one.process.kill()
    one.process.wait()
    assert one.ask(r"\boxed{x + 2}", "2 + x", 10) == "right"
    one.stop()


def test_a_workers_memory_is_capped():
    one = worker()
    limits = Path(f"/proc/{one.process.pid}/limits").read_text()
    assert re.search(rf"Max address space +{grading.MEMORY} ", limits)
    one.stop()


def test_a_worker_dies_with_its_parent():
    code = "from palign.grading import _Worker; w = _Worker(); w.ask('1', '2', 9); print(w.process.pid, flush=True)"
    parent = subprocess.Popen(
        [sys.executable, "-c", f"{code}; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_a_worker_that_cannot_start_is_an_error_not_a_grade(monkeypatch):
    """A broken installation must not turn every answer into a wrong one."""
    monkeypatch.setattr(grading.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="no grading process starts"):
        grading._Worker().ask("1", "2", 10)


def test_grading_works_in_threads():
    """math-verify's own timeouts are signals, which only the main thread may set."""
    pairs = [(rf"\frac{{{2 * i}}}{{7001}}", rf"$\frac{{{4 * i + (i % 2)}}}{{14002}}$") for i in range(1, 13)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda pair: equal(*pair), pairs)) == [i % 2 == 0 for i in range(1, 13)]


def test_a_script_without_a_main_guard_can_grade(tmp_path):
    """Python's own process pools run such a script again in every worker."""
    script = tmp_path / "script.py"
    script.write_text("from palign.grading import grade\nprint(grade('\\\\boxed{x+1}', '1+x').outcome)\n")
    assert subprocess.run([sys.executable, script], capture_output=True, text=True).stdout == "right\n"


# -- grades -----------------------------------------------------------------------------------------------------------


def test_two_boxes_in_one_paragraph_the_last_one_counts():
    """math-verify alone reads both as one answer and grades the response wrong."""
    text = r"So \boxed{9}. Wait, no, I forgot one: \boxed{10}"
    assert grade(text, "10") == Grade("right", "10", lenient="wrong")
    assert grade(text, "9") == Grade("wrong", "10", lenient="wrong")


def test_a_loop_with_no_box_is_credited_by_the_lenient_grade_alone():
    """math-verify falls back to any number: released AIME responses were counted right for a loop."""
    assert grade("the sum is 25 = 25 = 25 = " * 50, "25") == Grade("no box", None, lenient="right")


def test_order_and_company_do_not_change_a_grade():
    texts = [r"\boxed{1/2}", "none", r"\boxed{2}", r"\boxed{1/2}", r"\boxed{x}"]
    golds = ["0.5", "7", "2", "3", "y"]
    alone = [grade(text, gold) for text, gold in zip(texts, golds, strict=True)]
    assert grade_all(texts, golds) == alone
    assert grade_all(texts[::-1], golds[::-1], workers=1) == alone[::-1]
    assert grade_all([], []) == []
    assert [g.lenient for g in grade_all(texts, golds, lenient=False)] == [None] * 5


@pytest.mark.parametrize("content", ["", " ", "???", r"\frac{}{}"])
def test_a_box_with_nothing_to_read_is_unparseable(content):
    assert grade(rf"\boxed{{{content}}}", "7", lenient=False) == Grade("unparseable", content.strip())


def test_what_cannot_be_parsed_but_is_the_gold_to_the_letter_is_right():
    assert grade(r"\boxed{ ??? }", "???").right


@given(st.one_of(texts, st.text(max_size=30)), st.sampled_from(["7", "12"]))
@settings(max_examples=50, deadline=None)
def test_every_text_has_a_grade_and_its_parts_agree(text, gold):
    graded = grade(text, gold)
    assert (graded.outcome == "no box") == (graded.answer is None) == (last_box(text) is None)
    assert graded.right == (graded.answer is not None and equal(graded.answer, gold))


def test_importing_the_grader_loads_no_heavy_package():
    """Notebooks and the command line always import it, also without grading; sympy alone takes a second."""
    code = "import sys, palign.grading; print(*{'sympy', 'math_verify', 'numpy', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
