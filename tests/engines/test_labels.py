"""Labels are compared at the token in which they part, whatever their lengths."""

import math
import random
from statistics import fmean, stdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from palign.engines.base import EngineError, PlainReader
from palign.engines.labels import Answer, TokenEngine, label_ids, parting
from palign.engines.transformers import TransformersEngine
from palign.judging import Judge
from palign.params import Model
from palign.prompts import LABELS
from palign.traces import RULES

pytestmark = pytest.mark.model
PIECES = ["ENO", "UGH", "NOT", "_EN", "OUGH", "[", "]", *"abcdefghijklmnopqrstuvwxyz .?"]
VOCABULARY = 2000


@pytest.fixture(scope="module")
def tokenizer():
    """Labels of 4 and 5 tokens with a common first one, as Qwen2.5's, Qwen3's and Llama 3's tokenizers make them."""
    fast = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(PIECES)}, unk_token="."))
    fast.pre_tokenizer = pre_tokenizers.Split(Regex("ENO|UGH|NOT|_EN|OUGH|."), "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=fast, eos_token=".", pad_token=".")
    made.chat_template = "{{ messages[0].content }}"
    assert [len(ids) for ids in label_ids(made, LABELS)] == [4, 5]
    return made


def random_engine(tokenizer, seed: int) -> TransformersEngine:
    torch.manual_seed(seed)
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=1, pad_token_id=28)).eval()
    return TransformersEngine(Model(name="random", max_model_len=512), model, tokenizer, batch_size=8)


QUESTIONS = ["is it so?", "what is left of the bread?", "how many"]


def test_a_random_model_has_no_label_of_choice(tokenizer):
    """The sum over whole labels favours the shorter one by the logarithm of the vocabulary's size: it judged ENOUGH."""
    margins, sums = [], []
    for seed in range(40):
        engine = random_engine(tokenizer, seed)
        judge = Judge(engine, "{question} {prefix}", RULES["released"])
        session = judge.open([(question, ["a b.", "c d."]) for question in QUESTIONS])
        margins.append(fmean(verdict.margin for verdict in session([(i, 2) for i in range(len(QUESTIONS))])))
        ((enough, not_enough),) = engine.choose(QUESTIONS[:1], LABELS)
        sums.append(enough - not_enough)
    assert abs(fmean(margins)) < 3 * stdev(margins) / math.sqrt(len(margins)) < 0.2
    assert fmean(sums) == pytest.approx(math.log(VOCABULARY), abs=0.5)


@pytest.mark.parametrize("reader", [PlainReader, None])
def test_a_margin_is_the_difference_of_two_logits_after_the_common_beginning(tokenizer, reader):
    engine = random_engine(tokenizer, 7)
    if reader:
        engine.reader = lambda texts: reader(engine)
    judge = Judge(engine, "{question} {prefix}", RULES["released"])
    for question in QUESTIONS:
        (verdict,) = judge.open([(question, ["a b."])])([(0, 1)])
        ids = tokenizer(judge.prompt(question, ["a b."]) + "[").input_ids
        with torch.inference_mode():
            logits = engine.model(torch.tensor([ids])).logits[0, -1]
        assert verdict.margin == pytest.approx((logits[0] - logits[2]).item(), abs=2e-4), "ENO against NOT"


class Table(TokenEngine):
    """An engine whose log-probabilities are those of a table, drawn for each context."""

    def __init__(self, tokenizer, favoured, strength):
        self.source, self.tokenizer, self.asked = Model(name="table", max_model_len=512), tokenizer, 0
        self.favoured, self.strength = favoured, strength

    def logprobs(self, context: tuple[int, ...]):
        logits = torch.tensor([random.Random(f"{context} {token}").gauss(0, 3) for token in range(len(PIECES))])
        for length in range(len(self.favoured)):
            if context[len(context) - length :] == self.favoured[:length]:
                logits[self.favoured[length]] += self.strength
        return logits.log_softmax(-1)

    def score(self, requests):
        self.asked += len(requests)
        return [Answer(self.logprobs((*request.ids,))[request.token].item(), 1) for request in requests]


@given(st.integers(0, 1), st.floats(4, 12), st.text("abc ", min_size=1, max_size=6))
def test_where_greedy_decoding_writes_a_label_that_is_the_verdict(tokenizer, which, strength, question):
    ids = label_ids(tokenizer, LABELS)
    engine = Table(tokenizer, (*ids[which],), strength)
    judge = Judge(engine, "{question} {prefix}", RULES["released"])
    (verdict,) = judge.open([(question, ["a."])])([(0, 1)])
    assert engine.asked == 3, "the common beginning, and one token of each label"
    context = (*tokenizer(judge.prompt(question, ["a."])).input_ids,)
    start = len(context)
    for _ in range(max(map(len, ids))):
        context = *context, int(engine.logprobs(context).argmax())
    for label, tokens in zip(("ENOUGH", "NOT_ENOUGH"), ids, strict=True):
        if context[start : start + len(tokens)] == (*tokens,):
            assert verdict.label == label


tokens = st.lists(st.integers(0, 3), min_size=1, max_size=5)


class Known:
    """A tokenizer of two given labels."""

    def __init__(self, encoded):
        self.encoded = encoded

    def __call__(self, texts, add_special_tokens=False):
        from types import SimpleNamespace

        return SimpleNamespace(input_ids=self.encoded[int(texts)])


@given(tokens, tokens)
def test_labels_part_at_their_first_different_token_or_are_refused(one, other):
    short = min(len(one), len(other))
    if one[:short] == other[:short]:
        with pytest.raises(EngineError, match=r"verdict: compare: .* set verdict: decode"):
            parting(Known([one, other]), ("0", "1"))
    else:
        a, b = parting(Known([one, other]), ("0", "1"))
        assert a == one[: len(a)] and b == other[: len(b)] and len(a) == len(b)
        assert a[:-1] == b[:-1] and a[-1] != b[-1]
