"""The report of arms without prefixes, with several continuations a problem, with a choice, without continuations."""

import math

import pytest

from palign.arms import ARMS
from palign.params import Params
from palign.report import beside, door, ledger, rates, tables, texts
from palign.tasks.plan import Task
from palign.tasks.store import RunFolder

SENTENCES = ["One is first.", "Two comes next.", "Three is last.", r"\boxed{3}."]
TRACE = " ".join(SENTENCES)
RIVALS = ["p-align-k", "p-align-backoff", "success-prefix", "self-rewrite", "rft-k", "select-likely", "essence-50"]
RIVALS += ["prune-entropy", "p-align-fallback", "p-align-hard", "mix-long"]
N = 4


def prefix(i: int, strategy: str) -> dict:
    kept = {"entropy-pruned": [0, 2], "tokens-50": [0]}.get(strategy, [0, 1])
    text = " ".join(SENTENCES[k] for k in kept) + (" Two" if strategy == "tokens-50" else "")
    searched = strategy == "adaptive"
    record = {"id": str(i), "question": "q", "answer": "3", "status": "ok", "prefix": text, "sentences": len(kept)}
    record |= {"of": 4, "room": 4, "sufficient": searched, "verdicts": [[2, "ENOUGH", 1.0]] if searched else []}
    record |= {"unparsed": 0, "oracle_sentences": 2, "prefix_tokens": 8, "trace_tokens": 20, "tokens_read": 20}
    return record | {"tokens_demanded": 5, "tokens_of_prompts": 30, "tokens_generated": 0}


def pair(i: int, strategy: str) -> list[dict]:
    """The first problem is not solved by any strategy but by a choice, which takes the trace."""
    right = {"outcome": "right", "finish": "stop", "prompt_tokens": 20, "new_tokens": 9}
    wrong = right | {"outcome": "wrong"}
    record = {"id": str(i), "question": "q", "answer": "3", "prefix": "", "continuation": f"{strategy} {i}"}
    if strategy == "own-k":
        own = [{"id": f"{i}/{k}", "of": str(i), "sentences": 0, "tries": 4} for k in range(4)]
        return [record | one | (right if i and not k else wrong) for k, one in enumerate(own)]
    if strategy == "likely":
        return [record | right | {"source": "empty" if i else "trace", "score": -0.5}]
    if strategy in ("adaptive", "fixed-30", "fixed-50"):
        record |= {"prefix": SENTENCES[0]}
    if strategy.startswith(("adaptive-", "success")):
        record |= {"prefix": " ".join(SENTENCES[:3]), "sentences": 3, "tries": 1 + (not i)}
    if strategy == "rewrite":
        record |= {"sentences": 0, "tries": 1}
    return [record | (right if i else wrong)]


class Folder:
    """A finished task: each has read 100 tokens and trained on 1000, of 8 rows 2 being whole traces by fallback."""

    def __init__(self, task):
        self.task = task

    def manifest(self):
        facts = {"seconds": 1, "rows": 8, "updates": 3, "epochs": 3, "rows_left_out": 0, "rows_cut": 0}
        facts |= (
            {"rows_fallback": 2 if ARMS[self.task.variant].fallback else 0} if self.task.stage == "finetuning" else {}
        )
        trained = {"tokens_trained": 1000} if self.task.stage == "finetuning" else {"tokens_read": 100}
        return facts | trained | {"excluded": {}}


@pytest.fixture
def rivals(monkeypatch):
    """``rivals(arms)``: a study of these arms with made-up records."""

    def read(task, name):
        if name == "traces":
            return [{"id": str(i), "question": "q", "answer": "3", "trace": TRACE} for i in range(N)]
        if name == "problems":
            return []
        if name == "prefixes":
            return [prefix(i, task.variant) for i in range(N)]
        assert (task.stage, name) == ("alignment", "pairs"), f"{task.name}: {name}"
        return [record for i in range(N) for record in pair(i, task.variant)]

    monkeypatch.setattr(Task, "read", read)
    monkeypatch.setattr(Task, "require", lambda task: Folder(task))
    values = {"sufficiency_samples": 0, "judged_traces": 0, "entropy_traces": 0, "preference_judge": None}
    return lambda arms: door.Study(Params(arms=arms, **values))


def test_every_strategy_has_its_row_with_what_it_has(rivals):
    """own-k has no prefixes, a back-off makes them as it goes, and a shortened trace is not continued."""
    study = rivals(RIVALS)
    table = tables.strategies(study)
    assert set(table.index) == {*study.plan.strategies, *study.plan.cuts}
    assert table.loc["adaptive-backoff", "share of sentences, median"] == 3 / 4
    assert table.loc["adaptive", "share of sentences, median"] == 2 / 4
    assert table.loc["entropy-pruned", "arms"] == "prune-entropy" and table.loc["entropy-pruned", "prefixes"] == N
    assert table.loc[["tokens-50", "entropy-pruned"], "retention"].isna().all()
    assert table.loc["own-k", ["continuations a problem", "retention"]].tolist() == [4, 3 / 16]
    assert table.loc["own-k", "problems with a kept pair"] == 3 / 4
    assert table.loc["own-k", "arms"] == "rft-k, p-align-hard", "the arm that weighs rows by it, too"
    assert table.loc["adaptive-k", "continuations a problem"] == 5 / 4
    assert table.loc["likely", "chosen"] == "empty 3, trace 1"
    assert table.loc[["own-k", "rewrite", "likely", "empty"], "share of sentences, median"].isna().all()
    assert list(table.columns)[-3:] == ["retention", "problems with a kept pair", "chosen"]
    assert table.loc["adaptive", "arms"] == "p-align-fallback, p-align-hard"
    assert set(tables.retention(study).index) == set(study.plan.strategies)
    assert tables.retention(study).loc["own-k", ["pairs", "right", "wrong"]].tolist() == [16, 3, 13]


def test_a_selection_says_what_it_was_offered_and_chose_by_source_and_length(rivals, monkeypatch):
    """Both scores favour some lengths and some writers; a source that was never chosen has no length."""
    facts = {
        "offered": {"empty": {"count": 3, "mean_tokens": 20.5}, "trace": {"count": 4, "mean_tokens": 140.0}},
        "chosen": {"trace": {"count": 4, "mean_tokens": 140.0}},
    }
    monkeypatch.setattr(RunFolder, "manifest", lambda folder: facts)
    study = rivals(["zero-shot", "p-align", "select-likely"])
    table = tables.choices(study).set_index(["strategy", "source"])
    assert table.loc[("likely", "trace")].tolist() == [4, 140.0, 4, 140.0]
    assert table.loc[("likely", "empty"), ["offered", "offered tokens", "chosen"]].tolist() == [3, 20.5, 0]
    assert math.isnan(table.loc[("likely", "empty"), "chosen tokens"]) and len(table) == 2
    assert tables.choices(rivals(["zero-shot", "p-align"])).empty


def test_a_study_of_the_papers_arms_has_no_columns_of_the_rivals(rivals):
    table = tables.strategies(rivals(["zero-shot", "p-align", "rft"]))
    assert not {"continuations a problem", "chosen", "problems with a kept pair"} & set(table.columns)
    assert "rows_fallback" not in tables.costs(rivals(["zero-shot", "p-align"]))


def test_an_arm_pays_for_all_that_it_stands_on(rivals):
    """Each task cost 100 tokens. A choice reads its candidates' pairs, and these stand on prefixes."""
    table = tables.spent(rivals(["zero-shot", "rft", "p-align", *RIVALS]))
    costs = {arm: tuple(row) for arm, *row in table[["judged", "continued"]].itertuples()}
    assert costs["p-align"] == costs["p-align-fallback"] == (100, 100)
    assert costs["p-align-k"] == costs["p-align-backoff"] == (100, 100), "of the adaptive prefixes, not continued once"
    assert costs["success-prefix"] == costs["self-rewrite"] == costs["rft-k"] == costs["mix-long"] == (0, 100)
    assert costs["select-likely"] == (300, 500) and costs["p-align-hard"] == (100, 200)
    assert costs["essence-50"] == costs["prune-entropy"] == (100, 0)
    assert (table["total"] == table[["judged", "continued", "trained"]].sum(axis=1)).all()


def test_the_report_states_which_share_of_rows_is_whole_traces(rivals):
    study = rivals(["zero-shot", "p-align", "p-align-fallback", "self-rewrite"])
    said = "Of an arm's training rows these are whole traces by fallback: `p-align-fallback` 25 %, `self-rewrite` 25 %."
    assert texts.fallbacks(study) == said
    assert texts.fallbacks(rivals(["zero-shot", "p-align"])) == ""
    costs = tables.costs(study)
    assert costs.loc["finetuning/p-align-fallback", "rows_fallback"] == 2
    assert costs.loc["finetuning/p-align", "rows_fallback"] == 0
    facts = dict.fromkeys(["trainer", "rows", "rows_left_out", "rows_cut", "updates", "epochs"], 1)
    facts |= dict.fromkeys(["longest_row_tokens", "tokens_trained", "last_loss", "train_seconds"], 1)
    assert "rows_fallback" not in texts.training(facts | {"rows_fallback": 0}).index
    assert texts.training(facts | {"rows_fallback": 2}).loc["rows_fallback", "value"] == 2


@pytest.mark.parametrize("arms", [["zero-shot", "p-align-k"], ["zero-shot", "rft-k"], ["zero-shot", "essence-50"]])
def test_a_study_without_pairs_of_adaptive_prefixes_is_told_without_them(rivals, arms):
    """p-align-k has adaptive prefixes, and no pairs of one continuation each."""
    study = rivals(arms)
    for table in (tables.success_by_cut(study), tables.success_by_ratio(study)):
        assert table.empty
    found = tables.truncation(study)
    assert ("retention" in found.index) is False and (len(found) > 0) == study.plan.is_adaptive
    assert beside._retention(study, {}) == {} == beside._lengths(study, {})
    assert "no pairs of adaptive prefixes" in ledger._retention(study)
    assert texts.case(study) == ""  # the report then names the section among those left out
    assert (len(texts.pairs(study)) > 0) == bool(study.plan.strategies)
    assert set(rates._searches(study)) == ({"judge_calls"} if study.plan.is_adaptive else set())
    problem = study.problem("training/0")
    assert len(problem.rows) == {"p-align-k": 1, "rft-k": 4, "essence-50": 0}[arms[1]]


def test_a_problem_shows_the_part_of_the_trace_that_each_arm_keeps(rivals):
    """A pruned trace is no beginning, and a back-off's prefix is longer than the one it began with."""
    study = rivals(RIVALS)

    def kept(arm):
        return [sentence.kept for sentence in study.problem("training/1", arm).trace]

    assert kept("prune-entropy") == [True, False, True, False]
    assert kept("p-align-backoff") == [True, True, True, False] and kept("success-prefix") == kept("p-align-k")
    assert kept("essence-50")[0] and not any(kept("essence-50")[2:])
    assert kept("p-align-hard") == [True, True, False, False]
    assert not any(kept("rft-k")) and not any(kept("self-rewrite"))
    backed = study.problem("training/1", "p-align-backoff")
    assert backed.facts["Prefix (adaptive-backoff)"] == "3 of 4 sentences"
    assert any(sentence.probes for sentence in backed.trace), "the verdicts of the search it began with"
    own = study.problem("training/1", "rft-k").rows
    assert [row["grade"] for row in own] == ["right, kept for training"] + 3 * ["wrong, left out"]
    assert study.problem("training/0", "select-likely").rows[0]["grade"] == "right, kept for training, from trace"
    whole = study.problem("training/1")
    assert {row["strategy"] for row in whole.rows} == set(study.plan.strategies)
    assert whole._repr_html_() and repr(whole)
