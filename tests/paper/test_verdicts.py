"""Each claim has a verdict, and the verdict follows from its interval."""

import pytest

from palign.paper import verdicts
from palign.paper.claims import CLAIMS


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (["supported", "supported"], "supported"),
        (["supported", "not distinguishable"], "not distinguishable"),
        (["contradicted", "not distinguishable"], "contradicted"),
        (["contradicted", "supported"], "not distinguishable"),
        (["not testable"], "not testable"),
    ],
)
def test_a_claim_is_supported_only_in_every_setting(found, verdict):
    assert verdicts.overall(found) == verdict


def test_every_claim_has_a_verdict_and_a_source():
    table = verdicts.verdicts()
    shown = verdicts.claims_shown(table)
    assert len(shown) == len(CLAIMS) == len({claim.id for claim in CLAIMS})
    counts = shown["verdict"].value_counts().to_dict()
    assert counts == {"supported": 3, "not distinguishable": 16, "not testable": 4}
    assert verdicts.verdicts_text(table).startswith(
        "Of the paper's 23 claims, its printed numbers support 3 and contradict none; 16 are not distinguishable from "
        "no effect, and 4 are not testable."
    )


def test_the_verdict_follows_the_interval():
    table = verdicts.verdicts().dropna(subset=["gain"])
    assert (table["verdict"].eq("supported") == (table["low"] > 0)).all()
    assert (table["verdict"].eq("contradicted") == (table["high"] < 0)).all()


def test_shares_of_the_filter_and_the_prefix_are_the_tables_own():
    assert verdicts.kept()["percent"].tolist() == pytest.approx([97.2, 98.8])
    assert verdicts.lengths()["prefix_of_target"].round(1).tolist() == [83.1, 76.8, 79.2]
