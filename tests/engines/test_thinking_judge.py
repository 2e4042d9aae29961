"""A judge that thinks aloud, served by HTTP: its verdicts are read, no trace is lost and the student's search stays."""

import hashlib
import json

import pytest

from palign import traces, truncation
from palign.analysis import preference
from palign.params import validate
from palign.problems import collect_benchmarks
from palign.tasks.plan import Plan
from palign.traces import RULES
from tests.conftest import read_jsonl
from tests.engines import test_endpoint

pytestmark = pytest.mark.model

service = test_endpoint.service

JUDGE = {
    "arms": ["zero-shot", "p-align", "p-align-other-judge"],
    "judge": "endpoint:thinker",
    "judge_verdict": "decode",
    "judge_max_new_tokens": 600,
    "judge_max_model_len": 4096,
    "judge_prompt": "Q {question}\nD {prefix}\nEnd. Reply [ENOUGH] or [NOT_ENOUGH].",
    "preference_judge": "endpoint:thinker",
    "preference_max_new_tokens": 600,
    "preference_max_model_len": 4096,
    "preference_prompt": "Q {question}\n1 {first}\n2 {second}\nEnd. Reply [A], [B] or [TIE].",
}

MUSING = "Must I reply {one} or {other}? At first sight {other}.\nVerdict: {other}\n"
LOUD = [  # text, thoughts that come apart
    ("<think>{musing}</think>\n\n[{one}]", None),
    ("{musing}</think>\n**{one}**", None),  # the service's template opens the block
    ("<think>\n{musing}</think>\n\\[{escaped}\\]", None),
    ("$\\boxed{{\\text{{{escaped}}}}}$", "{musing}"),
    ("I compare.\n\n**Verdict: {one}**", "{musing}"),
    ("{one}", "{musing}"),
]
RAMBLING = [("<think>{musing}", None), ("", "{musing}"), ("Let me look at the draft once more.", None)]


def place(text: str, ways: list) -> int:
    return hashlib.sha256(text.encode()).digest()[0] % len(ways)


def replying(decide, ways):
    """A service's answers: ``decide`` gives the label for a prompt and another one; the ways of saying it alternate."""

    def made(body):
        prompt = body["messages"][0]["content"]
        one, other = decide(prompt)
        told = {"one": one, "other": other, "escaped": one.replace("_", r"\_")}
        told["musing"] = MUSING.format(**told)
        text, thoughts = ways[place(prompt, ways)]
        message = {"content": text.format(**told) or None}
        if thoughts:
            message["reasoning_content"] = thoughts.format(**told)
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 300}
        return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    return made


def enough(question: str, prefix: str) -> bool:
    """What the service means by its verdict."""
    return prefix.count(".") >= 2 + len(question) % 7


def verdict_on(prompt: str) -> tuple[str, str]:
    question, prefix = prompt.removeprefix("Q ").partition("\nEnd.")[0].split("\nD ")
    labels = ("ENOUGH", "NOT_ENOUGH")
    return labels if enough(question, prefix) else labels[::-1]


@pytest.mark.parametrize("ways", [LOUD, LOUD + RAMBLING], ids=["clear", "rambling"])
def test_every_trace_gets_the_prefix_that_the_judge_means(small, project, service, ways):
    """Thoughts were read as the answer, so a model that named both labels in them lost every trace."""
    url, seen = service((200, replying(verdict_on, ways)))
    params = validate({**small, **JUDGE, "endpoint_urls": [url]}, "test")
    collected = traces.collect(params)
    records = truncation.truncate(params, "judge")
    assert [record["status"] for record in records] == ["ok"] * len(collected) and all(r["prefix"] for r in records)
    rambled, used = 0, set()
    for trace, record in zip(collected, records, strict=True):
        sentences, lost = RULES["released"].split(trace.trace), 0
        for p, label, _ in record["verdicts"]:
            prefix = RULES["released"].join(sentences[:p])
            prompt = JUDGE["judge_prompt"].format(question=trace.question, prefix=prefix)
            way = ways[place(prompt, ways)]
            used.add(way)
            lost += way in RAMBLING
            assert label == ("ENOUGH" if way in LOUD and enough(trace.question, prefix) else "NOT_ENOUGH")
        assert record["unparsed"] == lost
        rambled += lost
    assert len(seen) == sum(len(record["verdicts"]) for record in records)  # none is asked twice
    assert {request["max_tokens"] for request in seen} == {600}
    assert set(ways) - set(RAMBLING) <= used and bool(rambled) == (ways is not LOUD)
    manifest = Plan(params).truncation("judge").folder.manifest()
    assert manifest["failed"] == 0 and manifest["unparsed"] == rambled


@pytest.mark.parametrize(
    "change",
    [
        {"judge": "endpoint:other"},
        {"judge_max_new_tokens": 900},
        {"judge_max_model_len": 8192},
        {"judge_chat_template_kwargs": {"enable_thinking": True}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_setting_of_the_judge_is_none_of_the_students(small, project, change):
    """A larger budget for a reasoning judge used to make the student's own prefixes anew."""
    values = {**small, **JUDGE, "endpoint_urls": ["http://127.0.0.1:9/v1"]}
    before, after = (Plan(validate(v, "test")) for v in (values, {**values, **change}))
    assert before.truncation("judge").key != after.truncation("judge").key
    for task in ("traces", "sufficiency", "entropy"):
        assert getattr(before, task).key == getattr(after, task).key
    for arm in ("zero-shot", "p-align"):
        assert before.evaluation(arm).key == after.evaluation(arm).key
    assert before.truncation("adaptive").key == after.truncation("adaptive").key


def preferred(prompt: str) -> tuple[str, str]:
    """The service prefers the longer response, and calls equal ones a tie."""
    first, second = prompt.partition("\nEnd.")[0].partition("\n1 ")[2].split("\n2 ")
    if first == second:
        return "TIE", "A"
    return ("A", "B") if len(first) > len(second) else ("B", "A")


@pytest.mark.parametrize("ways", [LOUD, LOUD + RAMBLING], ids=["clear", "rambling"])
def test_a_preference_is_read_behind_its_thoughts(small, project, service, ways):
    """Every verdict that named both responses in its thoughts used to be unparseable."""
    url, seen = service((200, replying(preferred, ways)))
    params = validate({**small, **JUDGE, "arms": ["zero-shot", "p-align"], "endpoint_urls": [url]}, "test")
    found = collect_benchmarks(params)
    said = {"zero-shot": ["Two.", "It is 2."], "p-align": ["Two.", "A good step. It is 2."]}
    for arm, texts in said.items():
        task = Plan(params).evaluation(arm)
        task.folder.path.mkdir(parents=True, exist_ok=True)
        rows = [{"id": str(i), "benchmark": p["benchmark"], "problem": p["id"]} for i, p in enumerate(found)]
        task.folder.write("responses", [row | {"sample": 0, "text": texts[i % 2]} for i, row in enumerate(rows)])
        task.finish()
    means = {p["id"]: ("tie", "win")[i % 2] for i, p in enumerate(found)}
    records = preference.compare(params)
    outcomes = [(record["outcome"], means[record["problem"]]) for record in records]
    assert len(outcomes) == len(found)
    task = Plan(params).preference
    if ways is LOUD:
        assert all(outcome == meant for outcome, meant in outcomes)
    else:
        assert {outcome for outcome, meant in outcomes if outcome != meant} == {"unparseable"}
        assert {outcome for outcome, meant in outcomes if outcome == meant}
    prompts = [request["messages"][0]["content"] for request in seen]
    assert task.folder.manifest()["unparseable"] == sum(ways[place(p, ways)] in RAMBLING for p in prompts)
    kept = read_jsonl(task.folder.path / "verdicts.jsonl")
    assert len(kept) == len(prompts) == 2 * len(found)
