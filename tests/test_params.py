"""A params file is either valid or refused in one line that says where, which key, which value and the remedy."""

import nbformat
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palign import params
from palign.study.cli import main
from tests.conftest import PROJECT

NOTEBOOKS = sorted(params.GROUPS)


@pytest.mark.parametrize("path", sorted((PROJECT / "params").glob("*.yaml")), ids=lambda path: path.name)
def test_every_params_file_in_the_repository_is_valid(path):
    assert params.load(path).study == path.stem


def test_the_defaults_are_the_pocket_study():
    assert params.load(PROJECT / "params" / "pocket.yaml") == params.Params()


def test_pocket_yaml_names_every_parameter():
    written = yaml.safe_load((PROJECT / "params" / "pocket.yaml").read_text())
    assert list(written) == list(params.Params.model_fields)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters_cell_shows_its_fields_with_their_defaults_and_meanings(name):
    """If the cell differed from the model, the notebook would run another study than its reader sees."""
    notebook = nbformat.read(PROJECT / "notebooks" / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    assert cells[0].source == params.parameters_cell(name)
    stated: dict = {}
    exec(cells[0].source, stated)
    assert params.from_notebook({key: value for key, value in stated.items() if value is not None}) == params.Params()


def test_a_parameters_cell_is_in_groups_of_a_few_lines_each_with_a_heading():
    """02 showed 28 keys without a break."""
    shown = [line for name in NOTEBOOKS for line in params.parameters_cell(name).splitlines()]
    for title in params.SECTIONS.values():
        assert f"# {title}" in shown
    for name in NOTEBOOKS:
        groups = params.parameters_cell(name).split("\n\n")
        assert all(group.startswith("# ") and group.count("  # ") <= 9 for group in groups)


def test_every_field_is_shown_by_some_notebook():
    shown = {field for name in NOTEBOOKS for field in params.fields_of(name)}
    assert shown == set(params.Params.model_fields)


BAD = {
    "a protocol by name only": ("study: x\ntop_p: 1.0", "protocol: paper means top_p: 0.9, not 1.0; set protocol: own"),
    "a rigorous protocol of few samples": (
        "study: x\nprotocol: rigorous",
        "rigorous needs n_samples of 16 or more, not 3",
    ),
    "empty": ("", "empty"),
    "a list": ("- study: x", "holds a list"),
    "nested without end": ("[" * 3000, "nested too deep"),
    "no study": ("seed: 1", "study: missing"),
    "misspelt key": ("study: x\nlerning_rate: 0.1", "lerning_rate: unknown key; did you mean learning_rate?"),
    "text for a number": (
        "study: x\nlearning_rate: 1e-4",
        "learning_rate: '1e-4': input should be a valid number; YAML",
    ),
    "out of range": ("study: x\ntop_p: 1.5", "top_p: 1.5: input should be less than or equal to 1"),
    "not a study name": ("study: ../x", "study: '../x'"),
    "unknown arm": ("study: x\narms: [zero-shot, grpo]", "arms.1: 'grpo': unknown; one of zero-shot, sft-label, "),
    "half an arm's name": (
        "study: x\narms: [segment]",
        "did you mean segment-prefix, segment-middle or segment-suffix?",
    ),
    "misspelt arm": ("study: x\narms: [p-allign]", "arms.0: 'p-allign': unknown; did you mean p-align?\n"),
    "misspelt choice": ("study: x\nengine: transformer", "engine: 'transformer': unknown; did you mean transformers?"),
    "misspelt key of a benchmark": (
        "study: x\nbenchmarks: [{name: a, data: b, problems: 1, splitt: test}]",
        "benchmarks.0.splitt: unknown key; did you mean split?",
    ),
    "arm twice": ("study: x\narms: [upft, upft]", "arms: names must differ"),
    "a training seed twice": ("study: x\ntraining_seeds: [1, 1]", "training_seeds: seeds must differ, got [1, 1]"),
    "no training seed": ("study: x\ntraining_seeds: []", "training_seeds"),
    "an endpoint that cannot compare": (
        "study: x\nstudent: endpoint:m\nmax_model_len: 32768\nverdict: compare\narms: [zero-shot]",
        "verdict: an endpoint gives no label log-probabilities to compare; set verdict: decode",
    ),
    "an endpoint without tokens to cut": (
        "study: x\nstudent: endpoint:m\nmax_model_len: 32768\nsecond_budget: 128\narms: [zero-shot]",
        "second_budget: an endpoint gives no tokens to cut a response by; set second_budget: null",
    ),
    "servers without an address": ("study: x\nengine: endpoint", "endpoint_urls: empty; engine: endpoint needs"),
    "an endpoint that cannot be trained": (
        "study: x\nstudent: endpoint:m\nmax_model_len: 32768\narms: [zero-shot, upft]",
        "student: an endpoint cannot be fine-tuned, and the arms ['upft'] are",
    ),
    "another judge without a name": (
        "study: x\narms: [p-align-other-judge]",
        "judge: p-align-other-judge needs another model, a hub id or local folder",
    ),
    "an oracle on data that know none": (
        "study: x\narms: [p-align-oracle]\ntraining_columns: {question: q, answer: a, trace: t}",
        "training_columns: p-align-oracle needs sufficient_chars",
    ),
    "a threshold for decoded verdicts": (
        "study: x\nverdict: decode\narms: [p-align-calibrated]",
        "verdict: p-align-calibrated sets a threshold for label log-probabilities; set verdict: compare",
    ),
    "more successes than samples": ("study: x\nsuccess_needed: 5", "success_needed: 5 exceeds success_samples 4"),
    "a rewriting prompt without the trace": (
        "study: x\nrewrite_prompt: '{question}'",
        "rewrite_prompt: must contain {trace} exactly once",
    ),
    "impossible sampling": ("study: x\ntemperature: 0.0", "n_samples: 3 samples at temperature 0"),
    "second budget too large": ("study: x\nsecond_budget: 256", "second_budget: 256 must be smaller"),
    "no room for a prompt": ("study: x\nmax_new_tokens: 1024", "max_new_tokens: 1024 leaves no room"),
    "prompt without its place": (
        "study: x\njudge_prompt: '{question}'",
        "judge_prompt: must contain {prefix} exactly once",
    ),
    "benchmark without a count": ("study: x\nbenchmarks: [{name: a, data: b}]", "benchmarks.0.problems: missing"),
    "not YAML": ("study: [x", "not valid YAML"),
}


@pytest.mark.parametrize("text, expected", BAD.values(), ids=BAD.keys())
def test_bad_file_is_refused_in_one_line_that_names_it(tmp_path, capsys, text, expected):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert main(["check", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{path}: ") and expected in err
    assert len(err.splitlines()) == 1


def test_missing_and_binary_files_are_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert main(["check", str(tmp_path / "none.yaml"), str(tmp_path / "binary.yaml")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_all_faults_of_a_file_are_told_at_once(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("study: x\nseeed: 1\nlora_r: 0\n")
    assert main(["check", str(tmp_path / "bad.yaml")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_notebook_refuses_an_injected_parameter_it_does_not_know():
    """papermill only warns of unknown names, and the study would run without them."""
    with pytest.raises(params.ParamsError, match=r"notebook parameters: lerning_rate: unknown key"):
        params.from_notebook({"lerning_rate": 0.1, "__name__": "__main__", "In": [], "params": params})


def test_notebook_takes_what_was_injected_and_ignores_what_is_no_parameter():
    found = params.from_notebook({"seed": 3, "arm": "upft", "training_seed": 1, "_i": "x", "pytest": pytest})
    assert found == params.Params(seed=3)


class Notebook:
    """A notebook in a live kernel, as :func:`palign.params.from_notebook` sees it: its names and its cells so far."""

    def __init__(self, name):
        self.name, self.names = name, {"In": [""]}

    def run(self, source):
        self.names["In"].append(source)
        exec(source, self.names)
        return self

    def edit(self, **values):
        """Run the parameters cell with these values below the printed ones."""
        own = "".join(f"\n{key} = {value!r}" for key, value in values.items())
        return self.run(params.parameters_cell(self.name) + own)

    def inject(self, **values):
        """What papermill does, behind the parameters cell."""
        return self.run("# Parameters\n" + "".join(f"{key} = {value!r}\n" for key, value in values.items()))

    @property
    def params(self):
        self.names["In"].append("params = from_notebook(globals())")
        return params.from_notebook(self.names, self.name)


@pytest.fixture
def studies(project):
    (project / "params" / "mine.yaml").write_text("study: mine\ntraining_limit: 24\nn_samples: 2\nprotocol: own\n")
    return project


def test_what_is_edited_in_one_notebook_holds_in_all(studies, capsys):
    """24 training problems, set in 01, were 320 in 02, without a word."""
    Notebook("01_generation").edit(study="mine", seed=7).params  # noqa: B018
    assert Notebook("04_finetuning").edit(lora_r=4).params.training_limit == 24
    capsys.readouterr()
    for name in NOTEBOOKS:
        edits = {"01_generation": {"study": "mine", "seed": 7}, "04_finetuning": {"lora_r": 4}}.get(name, {})
        found = Notebook(name).edit(**edits).params
        assert (found.study, found.seed, found.lora_r, found.training_limit) == ("mine", 7, 4, 24)
    said = capsys.readouterr().out.splitlines()
    assert (
        said[0]
        == "study mine (params/mine.yaml sets training_limit 24); edited: lora_r 4 in 04_finetuning, seed 7 here"
    )
    assert said[1] == "study mine (params/mine.yaml); edited: seed 7 in 01_generation, lora_r 4 in 04_finetuning"
    assert len(said) == len(NOTEBOOKS)
    Notebook("01_generation").edit(study="mine").params  # noqa: B018
    assert Notebook("02_truncation").edit().params.seed == 0


EDITS = {
    "01_generation": st.fixed_dictionaries(
        {}, optional={"seed": st.integers(1, 9), "training_limit": st.integers(1, 9)}
    ),
    "02_truncation": st.fixed_dictionaries({}, optional={"batch_size": st.integers(1, 9)}),
    "03_alignment": st.fixed_dictionaries({}, optional={"judged_traces": st.integers(1, 9)}),
    "04_finetuning": st.fixed_dictionaries({}, optional={"learning_rate": st.floats(1e-6, 1e-4)}),
    "06_report": st.fixed_dictionaries({}, optional={"arms": st.sampled_from([["zero-shot"], ["upft", "rft"]])}),
}


@given(st.lists(st.sampled_from(sorted(EDITS)).flatmap(lambda name: st.tuples(st.just(name), EDITS[name])), max_size=6))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_last_word_of_each_notebook_holds_in_any_order(studies, runs):
    (studies / "runs" / ".notebooks.yaml").unlink(missing_ok=True)
    for name, edits in runs:
        Notebook(name).edit(**{**edits, "study": "pocket"} if name == "01_generation" else edits).params  # noqa: B018
    last = dict(runs)
    expected = params.Params(**{key: value for edits in last.values() for key, value in edits.items()})
    assert Notebook("05_evaluation").edit().params == expected


def test_another_study_starts_without_edits_and_one_named_elsewhere_holds_there_alone(studies):
    first = Notebook("01_generation")
    first.edit(study="mine", seed=7).params  # noqa: B018
    assert Notebook("02_truncation").edit(study="pocket", batch_size=9).params == params.Params(batch_size=9)
    assert Notebook("03_alignment").edit().params == params.load("params/mine.yaml").model_copy(update={"seed": 7})
    first.edit(study="pocket").params  # noqa: B018
    assert Notebook("03_alignment").edit().params == params.Params()


def test_a_study_without_a_file_says_so(studies, capsys):
    assert Notebook("01_generation").edit(study="yours").params == params.Params(study="yours")
    assert capsys.readouterr().out == "study yours (no file in params/ has this name: defaults)\n"
    (studies / "params" / "other.yaml").write_text("study: yours\nseed: 3\n")
    assert Notebook("02_truncation").edit().params.seed == 3


def test_what_papermill_injects_holds_and_is_not_remembered(studies, capsys):
    """`palign run` injects all keys; one that equals the printed default must win over the study's file."""
    Notebook("01_generation").edit(seed=7).params  # noqa: B018
    stored = (studies / "runs" / ".notebooks.yaml").read_text()
    capsys.readouterr()
    pinned = params.Params(study="mine", lora_r=4).model_dump(mode="json")
    for name in NOTEBOOKS:
        assert Notebook(name).edit().inject(**pinned).params == params.Params(study="mine", lora_r=4)
    assert capsys.readouterr().out == ""
    some = {"study": "mine", "training_limit": None, "batch_size": 3}
    found = Notebook("02_truncation").edit().inject(**some).params
    assert found == params.load("params/mine.yaml").model_copy(update={"training_limit": None, "batch_size": 3})
    assert (studies / "runs" / ".notebooks.yaml").read_text() == stored


def test_the_validating_cell_runs_again_whatever_the_user_has_named(studies):
    """`i = 0` in a later cell was an unknown key."""
    notebook = Notebook("05_evaluation").edit(n_samples=2, protocol="own")
    notebook.run("i = 0\nxs = [1]").run("for seed in [3]:\n    top = seed")
    assert notebook.params.n_samples == 2


def test_a_misspelt_parameter_is_refused_until_it_is_mended(studies):
    notebook = Notebook("05_evaluation")
    right = params.parameters_cell("05_evaluation")
    for wrong in (right.replace("top_p:", "topp:"), right + "\nseed = 3"):
        notebook.run(wrong)
        words = r"topp: unknown key; did you mean top_p\?" if "topp" in wrong else "seed: a parameter of 01_generation"
        with pytest.raises(params.ParamsError, match=f"^notebook parameters: {words}"):
            notebook.params  # noqa: B018
        assert notebook.run(right).params == params.Params()
    with pytest.raises(params.ParamsError, match="lerning_rate: unknown key"):
        notebook.inject(lerning_rate=1).params  # noqa: B018


def test_an_own_name_in_a_parameters_place_is_refused_in_few_lines(studies):
    """A parameter that a cell had rebound to its thousand records gave an error of a million characters."""
    with pytest.raises(params.ParamsError) as refused:
        Notebook("01_generation").edit().run("benchmarks = [{'a': 1}] * 1000").params  # noqa: B018
    assert len(str(refused.value).splitlines()) == 11 and str(refused.value).endswith("3990 more faults")


def test_another_student_needs_a_file_of_its_own(studies):
    """The pocket's learning rate would ruin it, and its context would cut it."""
    with pytest.raises(params.ParamsError, match=r"student: a/b: the values of study pocket .* params/NAME\.yaml"):
        Notebook("02_truncation").edit(student="a/b").params  # noqa: B018


def test_a_file_of_edits_that_notebooks_cannot_read_is_named(studies):
    (studies / "runs").mkdir()
    (studies / "runs" / ".notebooks.yaml").write_text("- pocket\n")
    with pytest.raises(params.ParamsError, match=r"runs/\.notebooks\.yaml: not as the notebooks wrote it; remove it"):
        Notebook("02_truncation").edit().params  # noqa: B018


@given(st.text(st.sampled_from("ab \n{}'\""), max_size=400), st.text("ab ,", max_size=80))
def test_a_parameter_is_written_as_it_is_whatever_its_length(value, meaning):
    found: dict = {}
    exec(params.assignment("key", value, str | None, meaning), found)
    assert found["key"] == value


def test_arm_outside_the_study_is_refused():
    with pytest.raises(params.ParamsError, match="arm: 'sft'"):
        params.check_arm("sft", params.Params())


def test_training_seed_outside_the_study_is_refused():
    with pytest.raises(params.ParamsError, match=r"training_seed: 1: not one of this study's \[0\]"):
        params.check_arm("p-align", params.Params(), 1)


def test_a_value_on_the_command_line_takes_the_files_place(tmp_path, capsys):
    path = tmp_path / "a.yaml"
    path.write_text("study: a\narms: [zero-shot, rft]\nseed: 3\n")
    changed = params.load(path, [("arms", "[zero-shot, p-align]"), ("learning_rate", "1.0e-4")])
    assert changed.arms == ["zero-shot", "p-align"] and changed.learning_rate == 1e-4 and changed.seed == 3
    for key, value, words in (("arm", "[x]", "arm"), ("seed", "much", "seed"), ("arms", "[zero-shot", "-p arms: not")):
        assert main(["status", str(path), "-p", key, value]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "change", "start"),
    [
        ("", ("lerning_rate", "1"), "-p lerning_rate: unknown key; did you mean learning_rate?"),
        ("", ("seed", "much"), "-p seed: 'much': input should be a valid integer"),
        ("", ("benchmarks", "[{name: a, data: b}]"), "-p benchmarks.0.problems: missing"),
        ("", ("arms", "[p-align-other-judge]"), "FILE with -p arms: judge: p-align-other-judge needs another model"),
        ("", ("max_new_tokens", "100"), "FILE with -p max_new_tokens: second_budget: 128 must be smaller than"),
        ("top_p: 1.0", ("seed", "3"), "FILE: protocol: paper means top_p: 0.9"),
        ("seeed: 1", ("seed", "3"), "FILE: seeed: unknown key"),
    ],
)
def test_a_fault_is_blamed_on_what_it_came_from(tmp_path, text, change, start):
    """A misspelt key of `-p` was blamed on the file, which does not hold it."""
    path = tmp_path / "a.yaml"
    path.write_text(f"study: a\n{text}\n")
    with pytest.raises(params.ParamsError) as refused:
        params.load(path, [change])
    assert str(refused.value).startswith(start.replace("FILE", str(path)))


def test_a_misspelt_arm_of_a_notebook_is_told_the_right_one():
    with pytest.raises(params.ParamsError, match=r"notebook parameters: arm: 'p-allign': .*did you mean p-align\?"):
        params.check_arm("p-allign", params.Params())


def test_every_model_a_study_names_is_one_thing_whatever_its_role():
    """A teacher was once opened as a student with another name: with the student's type and context."""
    study = params.Params(
        student="a/student",
        teacher="a/teacher",
        teacher_max_model_len=4096,
        judge="a/judge",
        judge_revision="abc",
        trust_remote_code=["a/judge"],
        engine="endpoint",
        endpoint_urls=["http://host/v1"],
        preference_judge="a/critic",
    )
    student, teacher, judge = (study.model(role) for role in ("student", "teacher", "judge"))
    assert (student.name, student.dtype, student.max_model_len) == ("a/student", "float32", 1024)
    assert not student.trusted
    assert (teacher.dtype, teacher.max_model_len, teacher.chat_template_kwargs) == ("auto", 4096, {})
    assert (judge.revision, judge.trusted, judge.max_model_len) == ("abc", True, 1024)
    assert study.model("preference_judge").engine == "transformers"  # the servers serve the student
    with pytest.raises(params.ParamsError, match="teacher: null; name a model"):
        params.Params().model("teacher")


def test_a_part_of_the_parameters_has_its_own_keys_and_no_others():
    part = params.Params(lora_r=4).part(params.FineTuning)
    assert part.lora_r == 4 and not hasattr(part, "student")


# A study of one's own

OWN = "study: mine\nstudent: Qwen/Qwen2.5-7B-Instruct\nengine: vllm\ndtype: bfloat16\nmax_model_len: 32768\n"
"""All that a file for a student of 7 B must hold."""
PAPERS = sorted((PROJECT / "params").glob("paper-*.yaml"))


def written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_a_student_of_ones_own_never_gets_the_pockets_values_silently(tmp_path, capsys):
    """A file of two lines trained a 7 B student in float32 at a learning rate of 0.003, with a context of 1,024."""
    path = written(tmp_path, "study: mine\nstudent: Qwen/Qwen2.5-7B-Instruct\n")
    assert main(["check", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"{path}: student: Qwen/Qwen2.5-7B-Instruct: state also, with usual values: engine (vllm), dtype (bfloat16), "
        "max_model_len (32768); the defaults are for the pocket's models\n"
    )


def test_a_file_of_five_lines_is_the_papers_study(tmp_path, capsys):
    path = written(tmp_path, OWN)
    paper = params.load(PROJECT / "params" / "paper-qwen2.5-7b.yaml")
    own = {"study", "costs", "chat_template_kwargs", "teacher_max_new_tokens", "teacher_max_model_len"}
    assert params.load(path).model_dump(exclude=own) == paper.model_dump(exclude=own)
    assert main(["check", str(path)]) == 0
    out, err = capsys.readouterr()
    taken = f"{path}: the paper's values, since the file states none: {', '.join(params.PAPER)}"
    assert out.splitlines()[-1] == taken and err == ""


@pytest.mark.parametrize("path", PAPERS, ids=lambda path: path.name)
def test_the_papers_values_are_those_of_its_studies(path):
    paper, table = params.load(path), params.Params(**params.PAPER | {"max_model_len": 32768})
    machine = {"batch_size"}  # by the student's size
    assert all(getattr(paper, key) == getattr(table, key) for key in set(params.PAPER) - machine)
    assert params.from_paper(path) == []


@given(stated=st.sets(st.sampled_from(sorted(set(params.PAPER) - {"training_data"}))))
def test_what_a_file_states_is_kept_and_the_rest_is_the_papers(tmp_path_factory, stated):
    pocket = params.Params().values(*stated, "training_columns") if stated else {}
    path = tmp_path_factory.mktemp("own") / "mine.yaml"
    path.write_text(OWN + yaml.safe_dump({key: pocket[key] for key in stated} | {"second_budget": None}))
    found = params.load(path).values(*params.PAPER)
    rest = params.Params(**params.PAPER | {"max_model_len": 32768}).values(*params.PAPER)
    assert found == rest | {key: pocket[key] for key in stated} | {"second_budget": None}
    assert set(params.from_paper(path)) == set(params.PAPER) - stated - {"second_budget"}


def test_data_of_ones_own_need_their_columns(tmp_path):
    with pytest.raises(params.ParamsError, match=r"state also, with usual values: training_columns \("):
        params.load(written(tmp_path, OWN + "training_data: mine.jsonl\n"))
    columns = "{question: q, answer: a, trace: t}"
    found = params.load(written(tmp_path, OWN + f"training_data: mine.jsonl\ntraining_columns: {columns}\n"))
    assert found.training_answers == "answer" and found.learning_rate == 5e-5


def test_a_fault_says_which_value_is_the_papers(tmp_path):
    with pytest.raises(params.ParamsError, match=r"the file does not state alignment_max_new_tokens, which is the pap"):
        params.load(written(tmp_path, OWN.replace("32768", "8192")))


def test_other_faults_are_told_beside_what_is_missing(tmp_path):
    with pytest.raises(params.ParamsError) as refused:
        params.load(written(tmp_path, OWN.replace("max_model_len", "max_model_length")))
    first, second = str(refused.value).splitlines()
    assert "state also, with usual values: max_model_len (32768);" in first and "did you mean max_model_len?" in second


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("pocket", ("student", "Qwen/Qwen3-8B"), "for the pocket's student; name yours in a file of its own"),
        ("smoke", ("student", "Qwen/Qwen3-8B"), "for the pocket's student; name yours in a file of its own"),
        ("pocket", ("teacher", "Qwen/QwQ-32B"), "teacher_max_new_tokens (16384), teacher_max_model_len (20480);"),
        ("pocket", ("preference_judge", "a/judge"), "preference_max_new_tokens (2048), preference_max_model_len"),
        ("paper-qwen2.5-7b", ("judge", "a/judge"), "judge_max_new_tokens (2048), judge_max_model_len (32768);"),
    ],
)
def test_a_model_named_on_the_command_line_needs_budgets_of_its_own(name, change, words):
    """Every trace of `-p teacher Qwen/QwQ-32B` was cut at the pocket teacher's 512 tokens, after it was paid for."""
    with pytest.raises(params.ParamsError) as refused:
        params.load(PROJECT / "params" / f"{name}.yaml", [change])
    assert str(refused.value).startswith(f"-p {change[0]}: {change[1]}: ") and words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_pockets_models_need_nothing_more(project):
    (project / "student").symlink_to(PROJECT / "palign" / "pocket" / "student")
    (project / "mine.yaml").write_text("study: mine\nstudent: student\n")
    assert params.load(project / "mine.yaml").learning_rate == 3e-3
    full = PROJECT / "params" / "pocket-full.yaml"
    assert params.load(full, [("teacher", "palign/pocket/student-deep")]).teacher_max_new_tokens == 512


def test_table_8s_command_gives_the_teacher_room():
    taught = params.load(PROJECT / "params" / "paper-qwen2.5-7b.yaml", [("teacher", "Qwen/QwQ-32B")])
    assert taught.teacher_max_new_tokens >= 9291 and taught.teacher_max_model_len > taught.teacher_max_new_tokens
