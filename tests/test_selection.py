"""The student's likelihood chooses among right responses: what it compares, and what it leaves behind."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from palign import alignment, selection, traces, truncation
from palign.engines.opening import open_engine
from palign.engines.transformers import TransformersEngine
from palign.finetuning import encode
from palign.params import Machine, Model, Params, validate
from palign.prompts import fill, mark
from palign.selection import CANDIDATES, RANK_LIMIT, SOURCES, TRACE, Candidate, best, candidates, rank_surprisal, score
from palign.tasks.plan import Plan
from tests.conftest import POCKET

tokens = st.lists(st.tuples(st.floats(-20, -1e-3), st.integers(1, 10**6)), min_size=1, max_size=40)


# The rank-surprisal ratio


@given(tokens)
def test_the_ratio_is_mean_rank_over_mean_surprisal(found):
    logprobs, ranks = zip(*found, strict=True)
    mean_rank = sum(min(rank, 100) for rank in ranks) / len(ranks)
    assert rank_surprisal(logprobs, ranks) == pytest.approx(mean_rank / -selection.mean_logprob(logprobs))


@given(tokens, st.randoms(), st.integers(2, 5))
def test_the_ratio_depends_on_no_order_no_repetition_and_no_rank_beyond_the_limit(found, random, times):
    value = rank_surprisal(*zip(*found, strict=True))
    mixed = found * times
    random.shuffle(mixed)
    assert rank_surprisal(*zip(*mixed, strict=True)) == pytest.approx(value)
    clipped = [(logprob, rank + 7 if rank >= RANK_LIMIT else rank) for logprob, rank in found]
    assert rank_surprisal(*zip(*clipped, strict=True)) == value


def test_a_response_without_surprisal_has_a_ratio():
    assert math.isfinite(rank_surprisal([0.0, 0.0], [1, 1]))


# Which candidates there are


def pair(source: str, outcome: str = "right", **more) -> dict:
    return {"id": "t", "question": "q?", "answer": "7", "prefix": "" if source == "empty" else "A."} | {
        "continuation": r"B \boxed{7}",
        "outcome": outcome,
        "finish": "stop",
        **more,
    }


def trace(text: str) -> dict:
    return {"id": "t", "question": "q?", "answer": "7", "trace": text}


outcomes = st.sampled_from(["right", "wrong", "no box", "engine error", "prompt too long", "cut", None])


@given(st.tuples(*[outcomes] * len(CANDIDATES)), st.booleans())
def test_only_kept_pairs_are_candidates_and_the_trace_is_the_last(found, keep_cut):
    """A failed request is no wrong answer, and no candidate either."""
    pairs = {source: [] for source in CANDIDATES}
    for source, outcome in zip(CANDIDATES, found, strict=True):
        if outcome:
            cut = outcome == "cut"
            pairs[source] = [pair(source, "right" if cut else outcome, finish="length" if cut else "stop")]
    (offered,) = candidates([trace(r"So \boxed{7}.")], pairs, keep_cut)
    good = ("right", "cut") if keep_cut else ("right",)
    wanted = [source for source, outcome in zip(CANDIDATES, found, strict=True) if outcome in good]
    assert [one.source for one in offered] == [*wanted, TRACE]
    assert offered[-1].pair["prefix"] == "" and offered[-1].pair["outcome"] == "right"
    assert all((one.response == mark("A.", r"B \boxed{7}")) == bool(one.pair["prefix"]) for one in offered)


def test_a_trace_whose_own_answer_is_wrong_is_no_candidate():
    assert candidates([trace(r"So \boxed{8}.")], {}) == [[]]
    assert len(candidates([trace("So seven.")], {})[0]) == 1


scores = st.lists(st.sampled_from([-2.0, -1.0, -0.5, None]), min_size=0, max_size=5)


@given(scores)
def test_the_likeliest_and_the_lowest_ratio_win_and_of_equals_the_earlier(values):
    offered = [Candidate(source, pair(source)) for source in SOURCES[: len(values)]]
    table = {
        one.id: {"mean_logprob": value, "rsr": None if value is None else -value}
        for one, value in zip(offered, values, strict=True)
    }
    known = [value for value in values if value is not None]
    for strategy in ("likely", "rsr"):
        choice = best(offered, table, strategy)
        assert (choice is None) == (not known)
        if choice:
            assert offered.index(choice) == values.index(max(known))


# How a response is scored


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return open_engine(Model(name=str(POCKET / "student")), Machine(batch_size=3))


RESPONSES = [mark("Now four.", r"Then \boxed{4}."), "Okay, the dial starts at four. " * 4, "Wait."]
OFFERED = [
    Candidate("adaptive", pair("adaptive", prefix="Now four.", continuation=r"Then \boxed{4}.")),
    Candidate("empty", pair("empty", continuation=RESPONSES[1])),
    Candidate(TRACE, pair("empty", continuation=RESPONSES[2])),
]


@pytest.mark.model
def test_a_response_is_read_as_training_reads_it(engine):
    """By the tokens of finetuning's rows, without the end of turn; log-probabilities and ranks from all logits."""
    prompt = fill(Params().answer_prompt, question="q?")
    rows = [{"id": "t", "prompt": prompt, "completion": text, "answers": True} for text in RESPONSES]
    for record, row in zip(
        score(engine, Params().answer_prompt, OFFERED), encode(rows, engine.tokenizer, {}), strict=True
    ):
        start, end = row["prompt_tokens"], row["prompt_tokens"] + record["tokens"]
        assert record["prompt_tokens"] == start and len(row["input_ids"]) - end in (1, 2)
        with torch.no_grad():
            logits = engine.model(torch.tensor([row["input_ids"]])).logits[0].double()
        logprobs, own = logits.log_softmax(-1)[start - 1 : end - 1], row["input_ids"][start:end]
        logprobs_own = [line[token].item() for line, token in zip(logprobs, own, strict=True)]
        ranks = [int((line > line[token]).sum()) + 1 for line, token in zip(logprobs, own, strict=True)]
        assert record["mean_logprob"] == pytest.approx(sum(logprobs_own) / len(own), abs=1e-4)
        assert record["rsr"] == pytest.approx(rank_surprisal(logprobs_own, ranks), rel=1e-3)


@pytest.mark.model
def test_a_score_depends_on_no_other_candidate_nor_on_the_blocks(engine, monkeypatch):
    together = list(score(engine, Params().answer_prompt, OFFERED))
    assert together == [next(score(engine, Params().answer_prompt, [one])) for one in OFFERED]
    assert together[::-1] == list(score(engine, Params().answer_prompt, OFFERED[::-1]))
    monkeypatch.setattr(TransformersEngine, "LOGITS", 5 * engine.model.config.vocab_size)
    for record, other in zip(score(engine, Params().answer_prompt, OFFERED), together, strict=True):
        assert record["mean_logprob"] == pytest.approx(other["mean_logprob"], abs=1e-5)


@pytest.mark.model
def test_what_does_not_fit_has_no_score(engine):
    source = engine.source.model_copy(update={"max_model_len": 45})
    short = TransformersEngine(source, engine.model, engine.tokenizer, 3)
    found = list(score(short, Params().answer_prompt, OFFERED))
    assert [record["rsr"] is None for record in found] == [False, True, False]
    assert [record["mean_logprob"] is None for record in found] == [False, True, False]


# The stage


def test_the_task_chooses_resumes_and_shares_its_scores(small, monkeypatch):
    limits = {"training_limit": 4, "alignment_max_new_tokens": 96}
    loaded = validate({**small, **limits, "arms": ["zero-shot", "select-likely", "select-rsr"]}, "test")
    collected = traces.collect(loaded)
    truncation.truncate_all(loaded)
    alignment.align_all(loaded)
    plan = Plan(loaded)
    likely, rsr = (plan.alignment(name) for name in ("likely", "rsr"))
    assert likely.folder.read("scores") == rsr.folder.read("scores")
    table = {record["id"]: record for record in likely.folder.read("scores")}
    order = [item.id for item in collected]
    for task, column, sign in ((likely, "mean_logprob", 1), (rsr, "rsr", -1)):
        pairs, facts = task.read("pairs"), task.folder.manifest()
        assert [p["id"] for p in pairs] == [i for i in order if any(f"{i}/{source}" in table for source in SOURCES)]
        for chosen in pairs:
            own = [table[f"{chosen['id']}/{s}"] for s in SOURCES if f"{chosen['id']}/{s}" in table]
            assert sign * chosen["score"] == max(sign * record[column] for record in own)
            assert chosen["outcome"] == "right" and chosen["response_tokens"] > 0
            assert chosen["source"] in SOURCES and (chosen["prefix"] == "" or chosen["source"] not in ("empty", TRACE))
        counts = Counter(p["source"] for p in pairs)
        assert {source: found["count"] for source, found in facts["chosen"].items()} == counts
        assert facts["pairs"] == len(pairs) and facts["tokens_generated"] == 0 and facts["tokens_read"] > 0

    path, before = likely.folder.path / "scores.jsonl", likely.read("pairs")
    for other in (likely, rsr):
        other.folder.manifest_path.unlink()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert selection.select(loaded, "likely") == before and path.read_bytes() == whole

    def never(*_):
        raise AssertionError("the scores are there")

    (rsr.folder.path / "scores.jsonl").unlink()
    monkeypatch.setattr(selection, "score", never)
    assert selection.select(loaded, "rsr") == rsr.folder.read("pairs")
