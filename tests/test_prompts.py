"""Chat templates that do what real ones do: write the date, and rewrite what an assistant said."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palign import finetuning
from palign.engines.tokenizers import load_tokenizer
from palign.params import Model
from palign.prompts import check_date, plain, render
from tests.conftest import POCKET

pytestmark = pytest.mark.model

CUTS = "{{ message.content.split('</think>')[-1] | trim }}"  # as Qwen3's and Llama's do
REWRITING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.role == 'assistant' %}"
    f"{CUTS}{{% else %}}{{{{ message.content }}}}{{% endif %}}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(Model(name=str(POCKET / "student")))


@given(st.lists(st.sampled_from(["</think>", "<think>", "So", " ", "\n", "<|im_end|>", "\\boxed{5}"])).map("".join))
@example("First.</think>\nThen \\boxed{5}. ")
def test_a_template_cannot_rewrite_a_row_s_response(tokenizer, completion):
    """One completion with `</think>` in it stopped the arm under Qwen3's template."""
    own = tokenizer.chat_template
    tokenizer.chat_template = REWRITING
    try:
        row = {"id": "a", "prompt": "1+1?", "completion": completion, "answers": True}
        (found,) = finetuning.encode([row], tokenizer, {})
        wanted = render(tokenizer, "1+1?", {}), plain(tokenizer, completion, response=True) + "<|im_end|>\n"
    finally:
        tokenizer.chat_template = own
    prompt, response = tokenizer(list(wanted), add_special_tokens=False).input_ids
    assert found["input_ids"] == prompt + response and found["prompt_tokens"] == len(prompt)


DATED = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"


@pytest.mark.parametrize(
    "template, switches, remedy",
    [
        (DATED + "{{ date_string }}", {}, r"set chat_template_kwargs: \{date_string: 26 Jul 2024\}"),
        (DATED + "{{ date_string }}", {"date_string": "1 May 2024"}, None),
        (DATED, {}, None),  # it asks for the date and writes none
        ("{{ strftime_now('%H') }}", {"date_string": "1 May 2024"}, r"chat_template\.jinja with a fixed date"),
        ("{{ messages[0].content }}", {}, None),
    ],
)
def test_a_template_that_writes_the_date_is_refused_with_what_to_set(tokenizer, template, switches, remedy):
    """Prompts changed at midnight, between training and evaluation too, and no key could tell."""
    own = tokenizer.chat_template
    tokenizer.chat_template = template
    try:
        if remedy is None:
            check_date(tokenizer, switches)
        else:
            with pytest.raises(ValueError, match=f"writes today's date into every prompt; .*{remedy}"):
                check_date(tokenizer, switches)
    finally:
        tokenizer.chat_template = own


def test_a_model_whose_template_writes_the_date_cannot_be_opened(tmp_path):
    for file in (POCKET / "student").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}")
    with pytest.raises(ValueError, match=f"{tmp_path}: its chat template writes today's date"):
        load_tokenizer(Model(name=str(tmp_path)))
