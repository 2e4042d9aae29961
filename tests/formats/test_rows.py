"""Prompts and training rows of Qwen2.5, Qwen3 and Llama 3.2: their tokens are those of evaluation."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palign import finetuning
from palign.engines.tokenizers import load_tokenizer
from palign.params import Model, load
from palign.prompts import LABELS, check_date, plain, render
from tests.conftest import PROJECT
from tests.formats.build import FORMATS, SOURCES
from tests.formats.conftest import STOPS, SWITCHES, tokenizer_of

QUESTION = "  What is $\\frac{1}{2}+\\frac13$?\nAnswer in \\boxed{}.\n"
ENDS = {
    "qwen2_5": "<|im_start|>assistant\n",
    "qwen3": "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "llama3_2": "<|start_header_id|>assistant<|end_header_id|>\n\n",
}
CASES = [(family, SWITCHES[family]) for family in SOURCES] + [("qwen3", {"enable_thinking": True})]


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def row(completion: str, prompt: str = QUESTION) -> dict:
    return {"id": "a", "prompt": prompt, "completion": completion, "answers": True}


def test_the_tokenizers_are_those_of_the_models():
    known = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
    for family in ("qwen2_5", "qwen3"):
        assert {name: tokenizer_of(family).convert_tokens_to_ids(name) for name in known} == known
    assert ids(tokenizer_of("qwen3"), "<think></think>") == [151667, 151668]
    assert ids(tokenizer_of("qwen2_5"), "Hello world") == [9707, 1879]
    llama = tokenizer_of("llama3_2")
    known = {"<|begin_of_text|>": 128000, "<|end_of_text|>": 128001, "<|eom_id|>": 128008, "<|eot_id|>": 128009}
    assert {name: llama.convert_tokens_to_ids(name) for name in known} == known
    assert ids(llama, "Hello world") == [9906, 1917]
    assert [len(tokenizer_of(family)) for family in SOURCES] == [151665, 151669, 128256]


@given(st.text(), st.sampled_from(list(SOURCES)))
@settings(max_examples=50)
def test_texts_come_back_from_their_tokens(text, family):
    import unicodedata

    tokenizer = tokenizer_of(family)
    text = plain(tokenizer, text)
    kept = text if family == "llama3_2" else unicodedata.normalize("NFC", text)  # Qwen's tokenizers normalise
    assert tokenizer.decode(ids(tokenizer, text)) == kept


def test_a_prompt_has_the_template_s_own_ends(family, tokenizer):
    prompt = render(tokenizer, QUESTION, SWITCHES[family])
    assert prompt.endswith(ENDS[family])
    bos = tokenizer.bos_token_id
    assert bos is None or ids(tokenizer, prompt).count(bos) == 1
    assert ("You are Qwen" in prompt) == (family == "qwen2_5")  # a default system prompt


def test_a_question_s_control_tokens_are_text(family, tokenizer):
    """A question that ends its own turn would be answered as if the rest came from the model."""
    switches = SWITCHES[family]
    hostile = "".join(tokenizer.all_special_tokens) + "".join(tokenizer.get_added_vocab())
    counted = [
        sum(i in tokenizer.added_tokens_decoder for i in ids(tokenizer, render(tokenizer, text, switches)))
        for text in ("q", "q" + hostile)
    ]
    written = [t for t in SOURCES[family].other if t not in tokenizer.chat_template]  # these are no control tokens
    assert counted[1] - counted[0] == len(written)


@pytest.mark.parametrize("family, switches", CASES)
@given(
    completion=st.lists(
        st.sampled_from(
            [
                "</think>",
                "<think>",
                "<think>\n\n</think>\n\n",
                "<|im_end|>",
                "<|eot_id|>",
                "\n",
                " ",
                "So ",
                "\\boxed{5}",
                "é",
            ]
        )
    ).map("".join)
)
@settings(max_examples=30)
@example(completion="First.</think>Then \\boxed{5}.")
@example(completion="<think>\nHm.\n</think>\n\n\\boxed{5}")
@example(completion="<|im_end|><|eot_id|><|im_start|>")
@example(completion="\n  spaces kept \n")
@example(completion="")
def test_a_row_is_the_prompt_of_evaluation_and_exactly_the_completion(family, switches, completion):
    """Qwen3's template cut a completion up to `</think>`, which stopped the arm; Llama's stripped it."""
    tokenizer = tokenizer_of(family)
    (found,) = finetuning.encode([row(completion)], tokenizer, switches)
    prompt, response = found["input_ids"][: found["prompt_tokens"]], found["input_ids"][found["prompt_tokens"] :]
    assert prompt == ids(tokenizer, render(tokenizer, QUESTION, switches))
    own = ids(tokenizer, plain(tokenizer, completion, response=True))
    assert response[: len(own)] == own
    end = response[len(own) :]
    assert end[0] == tokenizer.eos_token_id and tokenizer.decode(end[1:]).strip() == ""
    assert not set(own) & {tokenizer.convert_tokens_to_ids(stop) for stop in STOPS[family]}


@pytest.mark.parametrize("family, switches", CASES)
def test_the_end_of_turn_is_learnt_and_the_prompt_is_not(family, switches):
    tokenizer = tokenizer_of(family)
    examples = finetuning.encode([row("So \\boxed{5}")], tokenizer, switches)
    (labelled,) = finetuning._labelled(examples, 10**6)
    learnt = [label for label in labelled["labels"] if label != finetuning.IGNORED]
    assert tokenizer.eos_token_id in learnt
    assert tokenizer.decode(learnt).startswith("So \\boxed{5}" + tokenizer.eos_token)


def test_a_template_that_writes_the_date_is_refused_with_what_to_set():
    """Llama 3.2's would train on one date and evaluate on the next, under the same keys."""
    with pytest.raises(
        ValueError,
        match="writes today's date into every prompt; set chat_template_kwargs: "
        r"\{date_string: 26 Jul 2024\}",
    ) as refused:
        load_tokenizer(Model(name=str(FORMATS / "llama3_2")))  # as every engine, and training, opens it
    assert "\n" not in str(refused.value)
    check_date(tokenizer_of("llama3_2"), {"date_string": "1 Jan 2025"})


def test_a_date_that_no_switch_can_fix_is_refused_too(monkeypatch):
    tokenizer = tokenizer_of("qwen3")
    monkeypatch.setattr(tokenizer, "chat_template", "{{ strftime_now('%Y') }}" + tokenizer.chat_template)
    with pytest.raises(ValueError, match=r"give its folder a chat_template\.jinja with a fixed date"):
        check_date(tokenizer, {})


@pytest.mark.parametrize(
    "study, family",
    [
        ("paper-qwen2.5-7b", "qwen2_5"),
        ("colab-t4", "qwen2_5"),
        ("paper-qwen3-8b", "qwen3"),
        ("paper-qwen3-14b", "qwen3"),
        ("paper-llama3.2-3b", "llama3_2"),
    ],
)
def test_the_params_files_prompts_are_the_same_on_two_dates(study, family):
    params = load(PROJECT / "params" / f"{study}.yaml")
    check_date(tokenizer_of(family), params.model("student").chat_template_kwargs)


@pytest.mark.parametrize("family", SOURCES)
def test_the_labels_share_their_first_token_only(family):
    """Where the labels part, one token decides."""
    enough, not_enough = (ids(tokenizer_of(family), label) for label in LABELS)
    assert (len(enough), len(not_enough)) == (4, 5)
    assert enough[0] == not_enough[0] and enough[1] != not_enough[1]
