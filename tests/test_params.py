"""A params file is either valid or refused in one line that says where, which key, which value and the remedy."""

import nbformat
import pytest
import yaml

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
    own = {
        "arm": ("p-align", "which arm; `palign run` executes this notebook once for each"),
        "training_seed": (0, "which of training_seeds; for an arm that is not trained, the first"),
    }
    extra = own if name in ("04_finetuning", "05_evaluation") else {}
    assert cells[0].source == params.parameters_cell(name, **extra)


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
        "study: x\nstudent: endpoint:m\narms: [zero-shot]",
        "verdict: an endpoint gives no label log-probabilities to compare; set verdict: decode",
    ),
    "an endpoint without tokens to cut": (
        "study: x\nstudent: endpoint:m\nverdict: decode\narms: [zero-shot]",
        "second_budget: an endpoint gives no tokens to cut a response by; set second_budget: null",
    ),
    "servers without an address": ("study: x\nengine: endpoint", "endpoint_urls: empty; engine: endpoint needs"),
    "an endpoint that cannot be trained": (
        "study: x\nstudent: endpoint:m\nverdict: decode\narms: [zero-shot, upft]",
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
