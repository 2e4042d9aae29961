"""The hubs' own schemas load with params only, from a mirror, from a cache, or not at all with one clear line.

All rows here are made up; only their columns and types are the hubs'.
"""

import json
from pathlib import Path

import datasets
import pytest

from palign import problems, traces
from palign.params import Benchmark, validate
from palign.problems import DataError, integer_answer, solution_answer
from palign.report import tables
from palign.report.results import Results
from palign.tasks.plan import Plan
from tests.conftest import write_jsonl

S1K = {
    "solution": "",
    "question": "",
    "cot_type": "math",
    "source_type": "made up",
    "metadata": "{}",
    "gemini_thinking_trajectory": "",
    "gemini_attempt": "",
    "deepseek_thinking_trajectory": "One. Two. Three.",
    "deepseek_attempt": "",
    "gemini_grade": "Yes",
    "gemini_grade_reason": "",
    "deepseek_grade": "Yes",
    "deepseek_grade_reason": "",
}
S1K_SOLUTIONS = [
    "We add.\n\nHence the sum is $\\boxed{25}$.",
    "$\\frac{1}{2}$",
    "128",
    "Suppose not. Then some number is larger than itself, which is absurd. This proves the claim.",
    None,
]
S1K_PARAMS = {
    "study": "t",
    "training_columns": {"question": "question", "answer": "solution", "trace": "deepseek_thinking_trajectory"},
    "training_answers": "solution",
}
ROWS = {
    "math500": [
        {
            "problem": f"Halve {n}.",
            "solution": f"It is $\\boxed{{\\frac{{{n}}}{{2}}}}$.",
            "answer": f"\\frac{{{n}}}{{2}}",
            "subject": "Algebra",
            "level": 1,
            "unique_id": f"test/algebra/{n}.json",
        }
        for n in (1, 3, 5)
    ],
    "aime24": [
        {"id": 60 + n, "problem": f"Add {n}.", "solution": "It is so.", "answer": a, "url": "", "year": "2024"}
        for n, a in enumerate(("025", "204"))
    ],
    "aime25": [{"problem": f"Take {n}.", "answer": n, "id": str(n)} for n in (70, 588)],
    "amc": [{"id": n, "problem": f"Double {n}.", "answer": 2.0 * n, "url": ""} for n in (71, 9)],
}
BENCHMARKS = {
    "math500": {"columns": {"id": "unique_id", "question": "problem", "answer": "answer"}},
    "aime24": {"split": "train", "columns": {"id": "id", "question": "problem", "answer": "answer"}},
    "aime25": {"columns": {"id": "id", "question": "problem", "answer": "answer"}},
    "amc": {"split": "train", "columns": {"id": "id", "question": "problem", "answer": "answer"}},
}
KINDS = {"math500": "latex", "aime24": "integer", "aime25": "integer", "amc": "integer"}
GOLDS = {
    "math500": ["\\frac{1}{2}", "\\frac{3}{2}", "\\frac{5}{2}"],
    "aime24": ["25", "204"],
    "aime25": ["70", "588"],
    "amc": ["142", "18"],
}


def mirror(folder: Path, rows: list[dict], split: str, form: str) -> Path:
    """A local copy of a hub data set, in the hub's layout: split and shard in the file's name."""
    if form == "parquet":
        (folder / "data").mkdir(parents=True)
        datasets.Dataset.from_list(rows).to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
    else:
        folder.mkdir(parents=True)
        write_jsonl(folder / f"{split}.jsonl", rows)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A card\n")
    return folder


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("name", ROWS)
def test_a_mirror_in_the_hubs_layout_and_schema_loads_by_params_alone(project, name, form):
    values = {"name": name, "data": f"mirror/{name}", "problems": len(ROWS[name]), "answer_kind": KINDS[name]}
    benchmark = Benchmark(**values, **BENCHMARKS[name])
    mirror(project / "mirror" / name, ROWS[name], benchmark.split, form)
    found, _ = problems.load_benchmark(benchmark)
    assert [problem.answer for problem in found] == GOLDS[name]
    assert found[0].question == ROWS[name][0]["problem"] and len({problem.id for problem in found}) == len(found)


def test_a_slice_of_a_split_is_a_benchmark_of_its_own_size(project):
    mirror(project / "math", ROWS["math500"], "test", "parquet")
    values = {"name": "first", "data": "math", "split": "test[:2]", "problems": 2}
    assert len(problems.load_benchmark(Benchmark(**values, columns=BENCHMARKS["math500"]["columns"]))[0]) == 2


def test_a_wrong_number_of_problems_stops_the_run_in_one_line(project):
    mirror(project / "amc", ROWS["amc"], "train", "parquet")
    with pytest.raises(DataError, match=r"^amc: 2 problems, the params file says 83$"):
        problems.load_benchmark(Benchmark(name="AMC12", data="amc", problems=83, **BENCHMARKS["amc"]))


def test_an_answer_that_is_not_of_the_stated_kind_is_refused_by_row(project):
    write_jsonl(project / "aime.jsonl", [*ROWS["aime24"], {"id": 99, "problem": "?", "answer": "about 7"}])
    benchmark = Benchmark(
        name="a", data="aime.jsonl", problems=3, answer_kind="integer", columns=BENCHMARKS["aime24"]["columns"]
    )
    with pytest.raises(DataError, match=r"aime\.jsonl: row 3: answer_kind integer: 'about 7' is not a whole number"):
        problems.load_benchmark(benchmark)


@pytest.mark.parametrize("value", ["025", "25", " 25 ", 25, 25.0, "25.0", "$25$", "\\boxed{25}"])
def test_a_whole_number_has_one_spelling(value):
    assert integer_answer(value) == "25"


@pytest.mark.parametrize("value, expected", [("000", "0"), ("-0", "0"), ("-07", "-7"), ("+7", "7"), (None, None)])
def test_whole_numbers_at_the_edges(value, expected):
    assert integer_answer(value) == expected


@pytest.mark.parametrize("value", ["12.5", "1/2", "twelve", "1e3"])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match="is not a whole number"):
        integer_answer(value)


@pytest.mark.parametrize(
    "text",
    [
        "128",
        "025",
        "-3",
        "$\\frac{1}{2}$",
        "\\frac{\\pi}{4}",
        "p - q",
        "(0, 3)",
        "45 km/h",
        "37{,}000 J",
        "11,\\! 100",
        "A",
        "(B)",
        "Yes",
        "No.",
        "x = 3 or 5",
        "\\text{ellipse}",
        "1 < x < 2",
        "$120^\\circ$.",
        "5.4 \\text{ cents}",
    ],
)
def test_bare_answers_of_many_kinds_are_recognised(text):
    assert solution_answer(text) == (text, "bare")


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "-",
        "Proved.",
        "See the solution above.",
        "We need to show that $x > 0$.",
        "Let $x$ be odd.",
        "Induction on $n$.",
        "We have $2^6 = 64$, so $\\log_2 64 = 6$.",
        "$1 + 2 = 3 = 3$",
        "$n = 6 \\Rightarrow n$ is even",
        "First 12. Then 13",
        "12\n\nand so on",
        "x" * 101,
        "Suppose there are 12 of them and none is equal",
        "\\boxed{}",
    ],
)
def test_solutions_and_proofs_without_an_answer_stated_apart_have_no_gold(text):
    """A wrong gold answer would make the filter keep wrong continuations; a missing one costs a problem."""
    assert solution_answer(text) == (None, "none")


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_s1k_loads_by_params_alone_and_counts_answers_by_kind(project, form):
    rows = [S1K | {"question": f"Question {i}?", "solution": s} for i, s in enumerate(S1K_SOLUTIONS)]
    mirror(project / "s1k", rows, "train", form)
    params = validate(S1K_PARAMS | {"training_data": "s1k"}, "test")
    found = traces.collect(params)
    assert [trace.answer for trace in found] == ["25", "$\\frac{1}{2}$", "128"]
    assert {trace.trace for trace in found} == {"One. Two. Three."}
    manifest = Plan(params).traces.folder.manifest()
    assert manifest["answers"] == {"boxed": 1, "bare": 2, "none": 1, "empty": 1}
    assert manifest["excluded"] == {"no answer stated in the solution": 1, "no answer": 1}
    assert "data_revisions" not in manifest
    account = tables.account(Results(params))
    assert account.loc[("rows", "kept"), "count"] == 3
    assert account.loc[("rows", "left out: no answer stated in the solution"), "count"] == 1
    assert account.loc[("answers", "bare"), "share"] == 0.4


def test_the_released_training_file_serves_as_whole_traces_by_column_mapping(project):
    """Alpaca rows have no separate trace: the arm sft-long-cot on them is fine-tuning on the authors' own targets."""
    output = "<Begin_of_Prefix>One. Two.<End_of_Prefix>So \\boxed{3}."
    write_jsonl(project / "a.jsonl", [{"instruction": "Reason.", "input": "1+2?", "output": output}])
    columns = {"question": "input", "answer": "output", "trace": "output"}
    values = {"study": "t", "training_data": "a.jsonl", "training_columns": columns, "training_answers": "solution"}
    (trace,) = traces.collect(validate(values, "test"))
    assert (trace.question, trace.answer, trace.trace) == ("1+2?", "3", output)


def test_a_hub_set_that_is_not_cached_fails_offline_in_one_line(project, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as error:
        problems.load_rows("made-up/never-cached", "test", None, {})
    assert "HF_HUB_OFFLINE is set" in str(error.value) and len(str(error.value).splitlines()) == 1


def test_the_commit_of_a_hub_set_is_read_from_its_download_addresses():
    """`revision: null` means the newest at the time: the manifest states which."""
    commit = "a" * 40
    info = datasets.DatasetInfo()
    assert problems._commit(info) is None
    info.download_checksums = {f"hf://datasets/x/y@{commit}/test.jsonl": {}, f"hf://datasets/x/y@{commit}/b.jsonl": {}}
    assert problems._commit(info) == commit


TEACHER = {
    "teacher": "student",
    "teacher_chat_template_kwargs": {"enable_thinking": False},
    "training_columns": {"question": "question", "answer": "answer"},
    "training_limit": 4,
}


def test_an_engine_writes_the_traces_and_goes_on_after_a_kill(small, monkeypatch):
    params = validate(small | TEACHER | {"batch_size": 2}, "test")
    task = Plan(params).traces
    work = type(task.folder).append
    calls = []

    def append(self, name, records, **how):
        calls.append(name)
        if calls.count("generated") == 3:
            raise KeyboardInterrupt
        return work(self, name, records, **how)

    monkeypatch.setattr(type(task.folder), "append", append)
    with pytest.raises(KeyboardInterrupt):
        traces.collect(params)
    assert len(task.folder.read("generated")) == 2 and not task.folder.done
    monkeypatch.setattr(type(task.folder), "append", work)
    found = traces.collect(params)
    generated = task.folder.read("generated")
    assert len(generated) == 4 and len({record["id"] for record in generated}) == 4
    manifest = task.folder.manifest()
    assert manifest["tokens_generated"] == sum(record["new_tokens"] for record in generated) > 0
    assert all(trace.trace and trace.sufficient_chars is None for trace in found)
    texts = {record["id"]: record["text"] for record in generated}
    assert all(trace.trace == texts[trace.id].strip() for trace in found)
    assert manifest["kept"] + sum(manifest["excluded"].values()) == 4


def test_traces_cut_at_the_budget_are_left_out_and_counted(small):
    with pytest.raises(DataError, match="trace cut at 3 tokens': 4"):
        traces.collect(validate(small | TEACHER | {"teacher_max_new_tokens": 3}, "test"))
    whole = validate(small | TEACHER, "test")
    traces.collect(whole)
    lengths = sorted(record["new_tokens"] for record in Plan(whole).traces.folder.read("generated"))
    assert lengths[0] < lengths[-1]
    some = validate(small | TEACHER | {"teacher_max_new_tokens": lengths[-1] - 1}, "test")
    kept = traces.collect(some)
    manifest = Plan(some).traces.folder.manifest()
    reason = f"trace cut at {lengths[-1] - 1} tokens"
    assert 0 < manifest["traces_cut"] == manifest["excluded"][reason] == 4 - len(kept) < 4
    assert tables.account(Results(some)).loc[("teacher", "cut at the budget"), "count"] == manifest["traces_cut"]


def test_questions_too_long_for_the_teacher_are_left_out_and_counted(small):
    params = validate(small | TEACHER | {"teacher_max_model_len": 20, "teacher_max_new_tokens": 19}, "test")
    with pytest.raises(DataError, match="question too long for the teacher': 4"):
        traces.collect(params)


def test_the_teacher_is_part_of_the_traces_key_only_where_it_writes_them(small):
    def key(**values):
        return Plan(validate(small | values, "test")).traces.key

    other = {"teacher_max_new_tokens": 100}
    assert key() == key(**other) == key(answer_prompt="{question}")
    assert len({key(), key(**TEACHER), key(**TEACHER | other), key(**TEACHER, answer_prompt="{question}")}) == 4


@pytest.mark.parametrize(
    "text, expected",
    [
        ("<think>\nOne. Two.\n</think>\n\nThe answer is 2.", "One. Two."),
        ("One. Two.</think>The answer is 2.", "One. Two."),
        ("One. Two.", "One. Two."),
        ("<think>cut off", "cut off"),
        ("<think></think>2", ""),
    ],
)
def test_the_trace_of_a_reasoning_model_is_what_it_thought(text, expected):
    assert traces.thoughts(text) == expected


def test_a_column_of_traces_is_needed_only_without_a_teacher():
    columns = {"question": "q", "answer": "a"}
    with pytest.raises(ValueError, match="training_columns: missing"):
        validate({"study": "t", "training_columns": columns}, "test")
    assert validate({"study": "t", "training_columns": columns, "teacher": "x/y"}, "test").teacher == "x/y"


def test_rows_read_back_from_the_run_are_the_rows_collected(small):
    params = validate(small | TEACHER, "test")
    assert traces.collect(params) == traces.load(params)
    json.dumps(Plan(params).traces.folder.manifest())
