"""What ``palign.open`` gives: a study's results, and its problems one by one. ``README.md`` here lists all fields.

>>> study = palign.open("params/pocket.yaml")
>>> study.responses("p-align")["right"].mean()
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from functools import cached_property

import pandas as pd

from ..arms import ARMS
from ..engines.base import NEVER_ANSWERED
from ..tasks.plan import prefixes_of
from ..traces import RULES, Rule
from ..truncation import READ
from . import tables
from .problem import Problem, Sentence
from .results import Results, problems_of

TRAINING = "training"
"""The set of the training problems in :meth:`Study.problems`; the other sets are the benchmarks."""


class Study(Results):
    """A finished study in Python. It runs nothing. Raises ``TaskMissing`` for what is not finished.

    ``accuracy()``     DataFrame: Pass@k by arm, benchmark, metric and budget (fractions), with 95 % intervals
    ``responses()``    DataFrame: every sampled answer to a test problem, with its grade; also ``responses(arm, seed)``
    ``prefixes()``     DataFrame: the prefix of each training trace, with the verdicts; of one strategy
    ``pairs()``        DataFrame: each prefix with the student's continuation and its outcome; of one strategy
    ``problems()``     DataFrame: all training and test problems
    ``problem(name)``  one problem, shown richly in a notebook

    ``palign/report/README.md`` lists every column with its unit.
    """

    def accuracy(self) -> pd.DataFrame:
        """Pass@k with intervals: one row per arm, benchmark, metric and response budget (``palign.report.tables``)."""
        return self._once(("accuracy",), lambda: tables.accuracy(self)).copy()

    def problems(self) -> pd.DataFrame:
        """All problems: ``name`` (for :meth:`problem`), ``set`` (``training`` or the benchmark), ``id``, ``question``
        and gold ``answer``.
        """
        return pd.DataFrame(
            [
                {"name": name, "set": name.split("/")[0], **{key: p[key] for key in ("id", "question", "answer")}}
                for name, p in self._by_name.items()
            ]
        )

    def problem(self, name: str, arm: str | None = None) -> Problem:
        """One problem, rich in a notebook and plain text elsewhere. ``name``: as in :meth:`problems`, or only the id
        where no other problem has it.

        A training problem shows its trace, in which the prefix that is kept is marked, each verdict of the search where
        it was asked for, and the student's continuation with its outcome: of ``arm``, or else of the adaptive prefix
        (the study's first strategy where it has none) beside the continuations of all others. Where an arm trains on
        a part of the trace alone, that part is marked. A test problem shows the
        answers, with their grades, of ``arm`` or of every arm. Raises ``ValueError`` for a name or an arm that the
        study does not have.
        """
        if arm is not None:
            self._check("arm", arm, self.arms)
        full = self.full_name(name)
        found = self._by_name[full]
        return self._training(found, arm) if full.startswith(f"{TRAINING}/") else self._test(full, found, arm)

    @cached_property
    def _by_name(self) -> dict[str, dict]:
        training = {f"{TRAINING}/{trace['id']}": trace for trace in self.traces}
        return training | {f"{problem['benchmark']}/{problem['id']}": problem for problem in self.tests}

    def full_name(self, name: str) -> str:
        """The name of a problem in :meth:`problems`, from that name or from its id where no other problem has it."""
        matches = [full for full, p in self._by_name.items() if name in (full, p["id"])]
        if len(matches) > 1:
            raise ValueError(f"problem {name!r}: there are {len(matches)}; name one of {', '.join(matches[:5])}")
        if not matches:
            self._check("problem", name, [*self._by_name, *(p["id"] for p in self._by_name.values())])
        return matches[0]

    def _check(self, what: str, name: str, known: list[str]) -> None:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known[:5])} and others"
            raise ValueError(f"{what} {name!r}: not in the study {self.params.study}; {hint}")

    def _training(self, trace: dict, arm: str | None) -> Problem:
        own = (ARMS[arm].strategy, *ARMS[arm].continued) if arm else (*self.plan.strategies, *self.plan.cuts)
        strategies = list(dict.fromkeys(strategy for strategy in own if strategy))
        shown = "adaptive" if "adaptive" in strategies else next(iter(strategies), None)
        prefix = self._prefix(shown, trace) if shown else {}
        facts = self._facts(prefix, arm, shown)
        sentences, note = self._sentences(trace["trace"], prefix, shown)
        rows = [row for strategy in strategies for row in self._continuations(strategy, trace["id"])]
        title = f"Training problem {trace['id']}" + (f", {arm}" if arm else "")
        return Problem(title, trace["question"], trace["answer"], facts, sentences, note, rows)

    def _prefix(self, strategy: str, trace: dict) -> dict:
        """The prefix that a strategy finds, or else that its pair of the problem has, beside the search it began with;
        empty where there is none.
        """
        found = _of(self.prefixes(prefixes_of(strategy) or strategy), trace["id"])
        pair = next(iter(self._pairs_of(strategy, trace["id"])), {})
        if strategy in self.plan.cuts or not pair.get("prefix"):
            return found
        rule = RULES[self.params.sentence_rule]
        parts = rule.split(trace["trace"])
        none = {"id": trace["id"], "status": "ok", "verdicts": (), "oracle_sentences": None, "sufficient": True}
        kept, own = pair.get("sentences"), {"prefix": pair["prefix"], "prefix_tokens": None, "trace_tokens": None}
        if pd.isna(kept):
            kept = len(_kept(parts, pair["prefix"], 0, rule))
        return {**none, "of": len(parts), **found, **own, "sentences": int(kept)}

    def _pairs_of(self, strategy: str, id: str) -> list[dict]:
        """The pairs of one problem by a strategy; several where it keeps several continuations."""
        pairs = self.pairs(strategy)
        return pairs[problems_of(pairs) == id].to_dict("records") if len(pairs) else []

    def _facts(self, prefix: dict, arm: str | None, strategy: str | None) -> dict[str, str]:
        facts = {"Arm": f"{arm}, {ARMS[arm].description}"} if arm else {}
        if not prefix:
            return facts | {"Prefix": "none" if arm is None or ARMS[arm].target else "none, this arm is not trained"}
        if prefix["status"] != "ok":
            return facts | {"Prefix": f"none: {prefix['status']}"}
        size = f"{prefix['sentences']:.0f} of {prefix['of']} sentences"
        if pd.notna(prefix["prefix_tokens"]):
            size += f", {prefix['prefix_tokens']} of {prefix['trace_tokens']} tokens"
        facts[f"Prefix ({strategy})"] = size
        if pd.notna(prefix["oracle_sentences"]):
            facts["Shortest sufficient prefix (oracle)"] = f"{prefix['oracle_sentences']:.0f} sentences"
        if prefix["verdicts"] and not prefix["sufficient"]:
            facts["Verdicts"] = "none was ENOUGH"
        rate = _of(self.pairs(strategy), prefix["id"]).get("success_rate")
        if pd.notna(rate):
            facts["Further continuations of it"] = f"{100 * rate:.0f} % right"
        return facts

    def _sentences(self, trace: str, prefix: dict, strategy: str | None) -> tuple[list[Sentence], str]:
        """The trace's sentences, and how to read them."""
        rule = RULES[self.params.sentence_rule]
        parts = rule.split(trace)
        kept = _kept(parts, prefix.get("prefix") or "", int(prefix.get("sentences", 0)), rule)
        probes: dict[int, list[str]] = {}
        for number, (sentences, label, value) in enumerate(prefix.get("verdicts", ()), 1):
            measured = "" if value is None or pd.isna(value) else f" ({value:+.2f})"
            probes.setdefault(sentences, []).append(f"{number}: {label}{measured}")
        space = " " if rule.join(["a", "b"]) == "a b" else ""
        found = [Sentence(part + space, i in kept, probes.get(i + 1, ())) for i, part in enumerate(parts)]
        notes = [f"{len(parts)} sentences", *(["marked: the kept part"] if kept else [])]
        if probes:
            unit = "the value it compares" if strategy in READ else "the margin in nats, positive for ENOUGH"
            notes.append(
                f"after a sentence: the probe of the prefix that ends there, with its number, its verdict and {unit}"
            )
        return found, "; ".join(notes)

    def _continuations(self, strategy: str, id: str) -> list[dict[str, str]]:
        """The rows of a strategy's continuations; none where the trace has no prefix. A choice names its source."""
        rows = []
        for pair in self._pairs_of(strategy, id):
            kept = "kept for training" if pair["kept"] else "left out"
            chosen = f", from {pair['source']}" if isinstance(pair.get("source"), str) else ""
            rows.append(
                {
                    "strategy": strategy,
                    "arms": ", ".join(tables.arms_of(self, strategy)),
                    "grade": f"{_outcome(pair)}, {'cut at the budget, ' if pair['cut'] else ''}{kept}{chosen}",
                    "tokens": f"{pair['new_tokens']:.0f}" if pd.notna(pair.get("new_tokens")) else "",
                    "text": pair["continuation"],
                }
            )
        return rows

    def _test(self, name: str, problem: dict, arm: str | None) -> Problem:
        found = self.responses(arm)
        found = found[(found["benchmark"] == problem["benchmark"]) & (found["problem"] == problem["id"])]
        several = len(self.params.training_seeds) > 1
        rows = [
            {"arm": row["arm"], **({"seed": str(row["seed"])} if several else {}), "sample": str(row["sample"])}
            | {"grade": self._grade(row), "tokens": str(row["new_tokens"]), "text": row["text"]}
            for row in found.to_dict("records")
        ]
        right = found["right"].groupby(found["arm"], sort=False).agg(["sum", "size"])
        facts = {"Right": ", ".join(f"{name} {r['sum']} of {r['size']}" for name, r in right.iterrows())}
        return Problem(f"Test problem {name}", problem["question"], problem["answer"], facts, [], "", rows)

    def _grade(self, row: dict) -> str:
        parts = [_outcome(row)]
        if row.get("reason"):
            parts.append(row["reason"])
        if row["finish"] == "length":
            parts.append(f"cut at {self.budget} tokens")
        if row["right"] != row.get("right_cut", row["right"]):
            parts.append(f"{'right' if row['right_cut'] else 'wrong'} in {self.params.second_budget} tokens")
        return ", ".join(parts)


def _kept(parts: list[str], text: str, count: int, rule: Rule) -> Collection[int]:
    """The numbers of the sentences that a text is made of: ``count`` in a row, or else those that it holds in order."""
    for start in range(len(parts) - count + 1) if text else ():
        if rule.join(parts[start : start + count]) == text:
            return range(start, start + count)
    found, at = [], 0
    for i, part in enumerate(parts):
        if (here := text.find(part.strip(), at)) >= 0 and not text[at:here].strip():
            found.append(i)
            at = here + len(part.strip())
    return found


def _of(frame: pd.DataFrame, id: str) -> dict:
    """The row of one id; empty where there is none."""
    rows = frame[frame["id"] == id].to_dict("records") if len(frame) else []
    return rows[0] if rows else {}


def _outcome(record: dict) -> str:
    return f"never answered ({record['finish']})" if record["finish"] in NEVER_ANSWERED else record["outcome"]
