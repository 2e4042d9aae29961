"""Shorter traces as others make them: half of the tokens, up to a right answer, without sentences of low entropy."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from palign import truncation
from palign.engines.base import Engine
from palign.engines.opening import open_engine
from palign.grading import grade
from palign.params import Machine, Model, Params
from palign.strategies import SOLUTIONS, EntropyPruned, HalfOfTokens, cutter, pruned, solution, stated, token_ends
from palign.traces import RULES, Trace
from tests.conftest import POCKET, read_jsonl

RULE = RULES["released"]
TOKENIZER = AutoTokenizer.from_pretrained(POCKET / "student")
texts = st.text(st.sampled_from("ab 0 9.\n\\{}é漢🙂"), min_size=1, max_size=60)


def record_of(find, text: str, answer: str = "7", rule=RULE) -> truncation.Prefix:
    trace = Trace("t", "q?", answer, text)
    sentences = rule.split(text)
    return truncation.of_cut(trace, sentences, find(trace, sentences), rule, len)


# Half of the tokens


@given(texts)
def test_the_first_half_of_the_tokens_is_a_true_prefix(text):
    """A character that several tokens share is kept whole: decoding its first token alone gives another one."""
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    record = record_of(HalfOfTokens(TOKENIZER, RULE), text)
    assert text.startswith(record.prefix) and record.prefix
    half, more = math.ceil(len(ids) / 2), len(TOKENIZER(record.prefix, add_special_tokens=False).input_ids)
    if text.isascii():
        assert TOKENIZER.decode(ids[:half]) == record.prefix and more <= half
    assert 0 <= record.sentences <= record.of and not record.sufficient and record.status == "ok"


@given(texts)
def test_a_tokenizer_without_offsets_gives_the_same_ends(text):
    class Slow:
        def __call__(self, text, **_):
            return SimpleNamespace(input_ids=TOKENIZER(text, add_special_tokens=False).input_ids)

        decode = staticmethod(TOKENIZER.decode)

    ends = token_ends(Slow(), text)
    assert ends == sorted(ends) and ends[-1] == len(text)
    if text.isascii():
        assert ends == token_ends(TOKENIZER, text)


# Up to a right answer


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        ("Adding up, m + n = 204.", "204"),
        (r"So it is \boxed{\frac12}, not 3.", r"\frac12"),
        (r"Thus $x = \frac{3}{4}$ and we are done.", r"\frac{3}{4}"),
        (r"\[ a_1 = 5, \]", "5"),
        ("The total is 28,800 ways.", "28,800"),
        ("That equals \\$10.", "10"),
        ("That equals $10.", "10"),
        ("So the rate (10%) it is.", "10"),
        ("In the end it is **-3**.", "-3"),
        ("The third side is at least x^2.", None),
        ("Then sqrt(2) remains.", None),
        ("We need y + 5.", None),
        ("So x > 5.", None),
        ("Is it 204?", None),
        ("Second gold gives nine.", None),
        ("2√3 is the length.", None),
        ("Half of it is 3/4 of a mile.", "3/4"),
    ],
)
def test_what_a_sentence_states_is_its_last_expression(sentence, value):
    assert stated(sentence) == value


statements = st.lists(st.sampled_from(["It is 7.", "So x = 7.", r"Take \boxed{7}.", "Or 8.", "Wait.", "Is it 7?"]))


@given(statements, st.sampled_from(["released", "reversible"]))
def test_a_solution_ends_at_its_right_answer(sentences, name):
    """Against its definition: runs of right sentences, of which the first or second begins at the cut."""
    rule, text = RULES[name], " ".join(["We look.", *sentences])
    parts = ["We look.", *sentences]
    right = [part.endswith(("7.", "7}.")) for part in parts]
    runs = [i for i, now in enumerate(right) if now and not right[i - 1]]
    for which, strategy in enumerate(SOLUTIONS):
        record = record_of(cutter(strategy, rule), text, rule=rule)
        if len(runs) <= which:
            assert record.status.startswith("states no right answer") and record.prefix == ""
            continue
        kept = " ".join(parts[: runs[which] + 1])
        assert record.prefix.removeprefix(kept) in ("", r" \boxed{7}") and record.prefix.startswith(kept)
        assert grade(record.prefix, "7").right and record.sufficient
        assert record.sentences == len(rule.split(kept))


def test_a_gold_solution_in_words_is_never_boxed():
    """Some data give a whole solution as the gold answer; the box holds what the trace states."""
    trace = Trace("t", "q?", r"Adding gives $\boxed{204}.$", "Hm. So m + n = 204. I check.")
    assert solution(trace, RULE.split(trace.trace), RULE, 1).text == r"Hm. So m + n = 204. \boxed{204}"


def test_the_pocket_states_its_answer_in_digits_only_at_the_end():
    """Its steps are in words, which grading does not read: the first solution is the whole trace."""
    for row in read_jsonl(POCKET / "data" / "train.jsonl")[:20]:
        first, second = (record_of(cutter(name, RULE), row["trace"], row["answer"]) for name in SOLUTIONS)
        assert first.prefix == row["trace"] and second.status == "states no right answer again"


# Without sentences of low entropy


@given(st.lists(st.floats(0, 9), min_size=1, max_size=40), st.sampled_from([0, 0.1, 0.29, 0.5, 0.8, 1]))
def test_pruning_leaves_out_the_share_of_the_lowest_and_never_the_last(entropies, share):
    kept, m = pruned(entropies, share), len(entropies)
    assert kept == sorted(set(kept)) and kept[-1] == m - 1
    assert len(kept) == m - min(round(100 * share) * m // 100, m - 1)
    out = [entropies[i] for i in range(m) if i not in kept]
    assert max(out, default=0) <= min((entropies[i] for i in kept[:-1]), default=9)


class Fake(Engine):
    """An engine whose entropy at a token is a function of the token's text."""

    def __init__(self, value, max_model_len=4096):
        self.source, self.tokenizer, self.value = Model(name="fake", max_model_len=max_model_len), TOKENIZER, value

    def entropies(self, prompts, responses):
        for prompt, response in zip(prompts, responses, strict=True):
            if self.count(prompt) + self.count(response) > self.source.max_model_len:
                yield None
            else:
                yield [self.value(TOKENIZER.decode(i)) for i in TOKENIZER(response, add_special_tokens=False).input_ids]


@pytest.mark.parametrize("name", ["released", "reversible"])
@given(heights=st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_a_token_counts_in_the_sentence_it_stands_in(name, heights):
    """The entropy of a digit is the digit, so sentence sums are known; what is joined is a subsequence."""
    rule = RULES[name]
    text = " ".join(f"Now {height}." for height in heights)
    engine = Fake(lambda token: float(token) if token.strip().isdigit() else 0.0)
    record = record_of(EntropyPruned(engine, rule, "{question}", 0.5), text, rule=rule)
    sentences, kept = rule.split(text), pruned([float(height) for height in heights], 0.5)
    assert record.prefix == rule.join([sentences[i] for i in kept])
    assert record.sentences == len(kept) and record.of == len(heights)
    assert record.tokens_read == engine.count(engine.prompt("q?")) + engine.count(text)


@pytest.mark.parametrize(
    ("engine", "error"),
    [
        (Fake(lambda token: 1.0, max_model_len=5), "prompt too long"),
        (Fake(lambda token: math.nan), "entropy of a token is not a number"),
    ],
)
def test_a_trace_that_cannot_be_read_is_an_error_and_no_text(engine, error):
    record = record_of(cutter("entropy-pruned", RULE, EntropyPruned(engine, RULE, "{question}", 0.5)), "Now 1. Now 2.")
    assert record.status == error and record.prefix == ""


@pytest.mark.model
def test_the_students_own_entropies_choose():
    """What is left is a subsequence of the trace that ends as it ends."""
    params = Params(student=str(POCKET / "student"))
    engine = open_engine(params.model("student"), params.part(Machine))
    row = read_jsonl(POCKET / "data" / "train.jsonl")[0]
    record = record_of(EntropyPruned(engine, RULE, params.answer_prompt, 0.5), row["trace"], row["answer"])
    sentences = RULE.split(row["trace"])
    kept = iter(sentences)
    assert all(any(part == other for other in kept) for part in RULE.split(record.prefix))
    assert record.sentences == math.ceil(len(sentences) / 2) and record.prefix.endswith(sentences[-1])
