"""Information gain scores an answer in the tokens that a text with this answer has."""

from types import SimpleNamespace

import pytest

from palign.engines.base import Engine, Reading
from palign.params import Model
from palign.strategies import InfoGain
from palign.traces import RULES, Trace
from tests.formats.build import SOURCES
from tests.formats.conftest import SWITCHES, tokenizer_of


class Scoring(Engine):
    """An engine that keeps what it is asked to score."""

    def __init__(self, family):
        self.tokenizer = tokenizer_of(family)
        self.source = Model(name=family, max_model_len=10**5, chat_template_kwargs=SWITCHES[family])
        self.scored = []

    def reader(self, texts):
        def choose(asked, labels):
            self.scored += [(prompt, *labels) for _, prompt in asked]
            return [Reading([-1.0], 0, 0, 0) for _ in asked]

        return SimpleNamespace(choose=choose)


@pytest.mark.parametrize("family", SOURCES)
@pytest.mark.parametrize("answer", ["\\frac{1}{2}", "5", "-3", "(1,2)", "\\text{no}", "12345", "x^2+1", "[0, 1]", ".5"])
def test_an_answer_is_scored_in_the_tokens_of_the_text(family, answer):
    """`{` `\\` `frac` was scored where texts have `{\\` `frac`: a rare sequence, whatever the prefix says."""
    engine = Scoring(family)
    trace = Trace(id="a", question="q", answer=answer, trace="One. Two.")
    InfoGain(engine, RULES["reversible"], "{question}\n{prefix}\nGo on.", "{question}\nAnswer.", 0.9)(
        trace, ["One. ", "Two."]
    )
    assert len(engine.scored) == 3
    for prompt, label in engine.scored:
        assert (prompt + label).endswith("\\boxed{" + answer)
        ids = [engine.tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, label, prompt + label)]
        assert ids[0] + ids[1] == ids[2]
