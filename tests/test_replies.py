"""What a judge's reply states: decoration and thoughts change nothing, and a reply without a label loses no trace."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palign.analysis.preference import verdict
from palign.engines.base import Completion, Engine, PlainReader
from palign.engines.tokenizers import Characters
from palign.judging import Judge, answer, label, parse, reply
from palign.params import Model
from palign.traces import RULES, Trace, split
from palign.truncation import lockstep, released

STATES, LETTERS = ("ENOUGH", "NOT_ENOUGH"), ("A", "B", "TIE")
LABELS = [*((name, STATES) for name in STATES), *((name, LETTERS) for name in LETTERS)]


@pytest.mark.parametrize(
    "text, stated",
    [
        ("ENOUGH", "ENOUGH"),
        ("NOT_ENOUGH", "NOT_ENOUGH"),
        (r"\[ENOUGH\]", "ENOUGH"),
        (r"NOT\_ENOUGH", "NOT_ENOUGH"),
        ("**NOT ENOUGH**", "NOT_ENOUGH"),
        ("NOT **[ENOUGH]**", "NOT_ENOUGH"),
        ("The draft is not ENOUGH.", "NOT_ENOUGH"),
        (r"$\boxed{\text{NOT}\_\text{ENOUGH}}$", "NOT_ENOUGH"),
        ('{"verdict": "NOT_ENOUGH"}', "NOT_ENOUGH"),
        ("[ENOUGH] and again [ENOUGH]", "ENOUGH"),
        ("[ENOUGH] or [NOT_ENOUGH]? I say\n[NOT_ENOUGH], not [ENOUGH].", "NOT_ENOUGH"),
        ("[NOT_ENOUGH]\nThe labels were [ENOUGH] and [NOT_ENOUGH].", "NOT_ENOUGH"),
        ("First [NOT_ENOUGH]?\nNo, [ENOUGH].\nIt holds all steps.", "ENOUGH"),
        *[(text, None) for text in ("", "This is not enough.", "enough", "Enough.", "NOTENOUGH", "It isn't ENOUGH.")],
    ],
)
def test_a_verdict_states_the_label_of_its_last_line_with_one(text, stated):
    assert parse(text) == stated


@pytest.mark.parametrize(
    "text, stated",
    [
        ("A", "A"),
        ("**B**.", "B"),
        ("A is shorter.\n\nVerdict: B", "B"),
        (r"\boxed{\text{A}}", "A"),
        ("Response A: longer.\nResponse B: shorter, so [[B]].", "B"),
        ("It is a TIE.", "TIE"),
        *[(text, None) for text in ("A good response.", "**A:** two steps", "Between A and B", "I take A", "not [A]")],
    ],
)
def test_a_single_letter_in_prose_is_no_preference(text, stated):
    """ "A good response is concise" would have preferred the response that is shown first."""
    assert verdict(text) == stated


PLAIN = ["{}", "[{}]", "[[{}]]", "**{}**", "**[{}]**", "__{}__", "`{}`", '"{}"', "({})", "{}.", "  {}  ", "# {}"]
LATEX = [r"\[{}\]", r"\boxed{{{}}}", r"$\boxed{{\text{{{}}}}}$", r"\text{{{}}}", r"\textbf{{[{}]}}", r"\left[{}\right]"]
decorations = st.sampled_from([*PLAIN, *LATEX, "Verdict: {}"])
spellings = st.sampled_from(["_", r"\_", " ", "  ", "-", "\u2011", "** **", r"}\_\text{", "\n"])
prose = st.text(st.sampled_from("abc .,!?\n"), max_size=30)
held = st.lists(
    st.sampled_from(["[ENOUGH]", "NOT_ENOUGH", "[A]", "Verdict: B", "TIE", "\n", " so ", "<think>", "</think>"])
).map("".join)


@given(st.sampled_from(LABELS), st.lists(decorations, min_size=1, max_size=2), spellings, prose)
@example(("NOT_ENOUGH", STATES), ["**{}**", r"\[{}\]"], r"\_", "")
def test_decoration_never_changes_the_label(case, around, between, before):
    """An escaped bracket used to be an error, which cost the trace."""
    name, labels = case
    text = name.replace("_", between)
    for one in around:
        text = one.format(text)
    assert label(f"{before}\n{text}", labels) == name


@given(st.sampled_from([("[ENOUGH]", STATES), ("so NOT_ENOUGH", STATES), ("[B]", LETTERS), ("Hm.", STATES)]), held)
def test_thoughts_never_change_the_label(case, thoughts):
    """A model that thinks aloud names both labels before it decides."""
    said, labels = case
    stated = label(said, labels)
    assert label(f"<think>{thoughts}</think>{said}", labels) == stated
    assert label(f"{thoughts}</think>\n\n{said}", labels) == stated  # the template opened the block in the prompt


@given(held.filter(lambda text: "</think>" not in text))
def test_thoughts_that_do_not_end_are_no_answer(thoughts):
    assert answer(f"<think>{thoughts}") == ""
    for prompt in ("Reply.<think>", "Reply.<think>\n"):
        assert parse(reply(prompt, thoughts)) is None
        assert parse(reply(prompt, f"{thoughts}</think>[ENOUGH]")) == "ENOUGH"
    # a template that switches thinking off writes an empty block
    assert reply("Reply.<think>\n\n</think>\n\n", thoughts) == reply("Reply.", thoughts) == thoughts


@given(
    st.permutations(STATES) | st.permutations(LETTERS), decorations, decorations, st.sampled_from([" ", ", ", " or "])
)
def test_two_labels_in_one_line_never_count(labels, one, other, between):
    text = one.format(f"[{labels[0]}]") + between + other.format(f"[{labels[1]}]")
    assert label(text, labels) is None


@given(st.sampled_from(["NOT", "not", "Not"]), spellings, decorations, decorations, prose)
def test_not_enough_never_reads_as_enough(no, between, around, inside, before):
    assert parse(f"{before} " + around.format(no + between + "ENOUGH")) != "ENOUGH"
    assert parse(f"{before} {no} {inside.format('ENOUGH')}") != "ENOUGH" or inside == "Verdict: {}"


@given(st.text(), st.sampled_from([STATES, LETTERS]))
def test_any_text_can_be_read(text, labels):
    found = label(text, labels)
    assert found is None or all(word.lower() in text.lower() for word in found.split("_"))


# --- what that means for a search ---

SENTENCES, TRACES = 170, 200
RAMBLING = "The draft sets up the problem and then goes on to the"


class Decoding(Engine):
    """A judge that finds 60 sentences enough and replies to one prompt in ``every`` without a label."""

    def __init__(self, every):
        self.source, self.tokenizer = Model(name="fake", max_model_len=10**6), Characters()
        self.every, self.prompts = every, []

    def generate(self, prompts, sampling, seeds):
        replies = []
        for prompt in prompts:
            self.prompts.append(prompt)
            said = "[ENOUGH]" if prompt.count(".") >= 60 else "[NOT_ENOUGH]"
            text = RAMBLING if len(self.prompts) % self.every == 0 else said
            replies.append(Completion(text, "length" if text is RAMBLING else "stop", len(prompt), 16))
        return replies

    def reader(self, texts):
        return PlainReader(self)


def test_a_judge_that_rambles_now_and_then_loses_no_trace():
    """5 % of replies without a label used to lose a third of the traces at 7.4 verdicts a trace."""
    engine = Decoding(every=20)
    traces = [Trace(str(i), f"q{i}", "1", " ".join(f"w{p}." for p in range(SENTENCES))) for i in range(TRACES)]
    judge = Judge(engine, "{question}: {prefix}", RULES["released"], "decode")
    found = list(lockstep(traces, released, judge.open, len))
    calls = len(engine.prompts) / TRACES
    assert 7 <= calls <= 8 and [record.status for record in found] == ["ok"] * TRACES
    assert sum(len(record.verdicts) for record in found) == len(engine.prompts)  # none is asked twice


def test_a_reply_without_a_label_is_not_enough_and_says_so():
    engine = Decoding(every=1)
    session = Judge(engine, "{question}: {prefix}", RULES["released"], "decode").open([("q", split("A. B."))])
    (verdict,) = session([(0, 2)])
    assert (verdict.label, verdict.unparsed, verdict.reason, verdict.new_tokens) == ("NOT_ENOUGH", True, None, 16)
    assert len(engine.prompts) == 1


def test_a_template_that_opens_the_thoughts_is_seen():
    """A verdict cut in its thoughts has not been given, although the thoughts name a label."""
    engine = Decoding(every=10**9)
    engine.prompt = lambda user: f"{user}<think>\n"
    session = Judge(engine, "{question}: {prefix}", RULES["released"], "decode").open([("q", split("A. B."))])
    (verdict,) = session([(0, 2)])
    assert (verdict.label, verdict.unparsed) == ("NOT_ENOUGH", True)
