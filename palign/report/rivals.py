"""Rivals of P-ALIGN compared, from report folders only: every arm, its controls, curves over updates, other worlds.

The studies are those of ``params/pocket-beyond*.yaml`` and ``params/pocket-mending.yaml``. What has no report yet is
left out. All differences are paired by test problem; their intervals hold problems and training seeds.

>>> studies = load(root() / "reports")
>>> arms(studies["pocket-beyond"])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from pydantic import Field

from ..arms import ARMS
from ..params import Strict, resolve, root
from . import compare, display, tables, views
from .compare import Study
from .display import Table
from .results import aligned
from .texts import cell

MAIN = "pocket-beyond"
CURVE = ("pocket-beyond-60", MAIN, "pocket-beyond-240", "pocket-beyond-480")
"""Studies that differ in the number of updates only."""
WORLDS = {
    MAIN: "the pocket study's teacher and student",
    "pocket-beyond-seed-1": "another seed of sampling",
    "pocket-beyond-other-teacher": "a teacher that seldom doubts",
    "pocket-beyond-other-student": "a deeper student",
    "pocket-mending": "a teacher whose doubts mend",
}
PALIGN = "p-align"
CHEAPEST = "rft-k-fallback"
"""The control that any judge must beat."""
CONTROL = f"{CHEAPEST} (the student's own right answer, else the whole trace: no judge, no prefix)"
LEADER = "p-align-fallback"
"""The extension that the others on the curve stand beside."""
EQUAL = "p-align-k"
"""P-ALIGN with several continuations of its prefix."""
MANY = "pocket-beyond-16"
"""The study in which it and the control are allowed more."""
EXTENSIONS = (
    *("p-align-fallback", "p-align-fallback-prompt", "p-align-backoff", "backoff", "backoff-30"),
    *("p-align-calibrated", "success-prefix", "success-prefix-first", "success-prefix-last", "p-align-hard"),
)
"""The arms that may take the lead from P-ALIGN: ways of this study to use a prefix."""
MOST = 3
"""So many arms are named in a sentence, and lead a table."""
BESIDE = (PALIGN, CHEAPEST, "sft-long-cot", "zero-shot")
"""The arms that the best ones stand beside in the first table."""

QUESTIONS = (
    ("Do whole traces of the problems that the filter drops help?", "p-align-fallback", PALIGN),
    (
        "Do the dropped problems' traces help more than those of random ones?",
        "p-align-fallback",
        "p-align-fallback-random",
    ),
    ("Do the marks around the prefix help P-ALIGN?", PALIGN, "p-align-unmarked"),
    ("Do the marks help where whole traces are added?", "p-align-fallback", "p-align-fallback-unmarked"),
    ("Is a prompt of their own better for the added traces?", "p-align-fallback-prompt", "p-align-fallback"),
    ("Is a fallback to the trace better with a judged prefix than without?", "p-align-fallback", CHEAPEST),
    ("After a wrong continuation, is a longer prefix better than another try?", "p-align-backoff", EQUAL),
    ("Is back-off better from the judge's prefix than from a short start?", "p-align-backoff", "backoff"),
    ("Is back-off better from the judge's prefix than from 30 % of the trace?", "p-align-backoff", "backoff-30"),
    ("Is back-off to longer prefixes better than a fallback to the trace?", "p-align-backoff", "p-align-fallback"),
    ("Is the student's success a better judge than its verdict?", "success-prefix", PALIGN),
    ("By success, is a scan from the front better than a binary search?", "success-prefix-first", "success-prefix"),
    ("By success, is a scan from the end better than a binary search?", "success-prefix-last", "success-prefix"),
    ("Is a calibrated threshold of the verdict better?", "p-align-calibrated", PALIGN),
    ("Are several continuations of one prefix better than one?", EQUAL, PALIGN),
    ("Does more weight on hard problems help?", "p-align-hard", PALIGN),
    ("Does weight on hard problems help more than on random ones?", "p-align-hard", "p-align-hard-random"),
    ("Of several right responses, is the likeliest better?", "select-likely", PALIGN),
    ("Is a fallback to the trace better than the likeliest response?", "p-align-fallback", "select-likely"),
    ("Of several right responses, is that of the lowest rank-surprisal ratio better?", "select-rsr", PALIGN),
)
"""(the question, an arm, what it is compared with): the arm minus the other."""


class Rivals(Strict):
    """The parameters of the notebook on rivals."""

    reports: str = Field("reports", description="folder that holds the studies' reports")

    @property
    def path(self) -> Path:
        return Path(resolve(self.reports))

    @property
    def folder(self) -> Path:
        """Where the report goes."""
        return root() / "reports" / "rivals"


def load(folder: Path, names: Iterable[str] = (*CURVE, *WORLDS, MANY)) -> dict[str, Study]:
    """The studies of these names whose reports stand in ``folder``, in the names' order.

    Raises ``palign.report.compare.CompareError`` for a report that cannot be read.
    """
    return {name: compare.load(folder / name) for name in dict.fromkeys(names) if (folder / name).is_dir()}


def arms(study: Study) -> pd.DataFrame:
    """One row per arm: its averages over benchmarks, with 95 % intervals, and what it costs.

    ``pass@1`` and ``pass@3`` at the main budget, ``pass@1 in N tokens`` and ``pass@3 in N tokens`` at the second one,
    each with ``_low`` and ``_high`` (fractions); ``over p-align``: the difference in Pass@1 at the main budget, with
    ``_low``, ``_high`` and ``clear`` (Holm over the arms); ``judged``, ``continued`` and ``trained``: tokens of the
    student; ``response``: mean tokens of a test response.
    """
    accuracy = tables.accuracy(study)
    accuracy = accuracy[accuracy["benchmark"] == tables.single(accuracy)]
    found: dict[str, pd.Series] = {}
    for (metric, budget), rows in accuracy.groupby(["metric", "budget"], sort=False):
        name = metric if budget == study.budgets[0] else f"{metric} in {budget} tokens"
        found |= _bounds(rows.set_index("arm"), name)
    if PALIGN in study.arms:
        found |= _bounds(tables.main(tables.differences(study, PALIGN)).set_index("arm"), f"over {PALIGN}", "clear")
    table = pd.DataFrame(found).reindex(study.arms).rename_axis("arm")
    spent, responses = (pd.read_csv(study.folder / "tables" / f"{n}.csv", index_col=0) for n in ("spent", "responses"))
    table = table.join(spent[["judged", "continued", "trained"]]).assign(response=responses["tokens_mean"])
    return table.sort_values("pass@1", ascending=False, kind="stable")


def _bounds(rows: pd.DataFrame, name: str, *others: str) -> dict[str, pd.Series]:
    ends = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
    return {ends.get(column, column): rows[column] for column in (*ends, *others)}


def questions(study: Study) -> pd.DataFrame:
    """One row per question whose two arms the study has: the ``arm`` minus the ``other``, Pass@1 at the main budget.

    ``value``, ``low``, ``high`` (95 %), ``p`` and ``p_holm`` over the questions, ``clear``.
    """
    rows = []
    for question, arm, other in QUESTIONS:
        if {arm, other} <= set(study.arms):
            pair = study.outcomes.pair(arm, other, "pass@1", study.budgets[0])
            rows.append({"question": question, "arm": arm, "other": other} | tables.compared(*pair))
    columns = ["question", "arm", "other", "value", "low", "high", "n", "gains", "losses", "test", "p"]
    return pd.DataFrame(tables.judged(rows), columns=[*columns, "p_holm", "clear"])


def updates(study: Study) -> int:
    """Optimizer updates that each arm takes, from its report's costs."""
    costs = pd.read_csv(study.folder / "tables" / "costs.csv", index_col=0)
    trained = costs[costs.index.str.startswith("finetuning/")]
    return int((trained["updates"] / trained.get("seeds", 1)).max())


def curve(studies: Mapping[str, Study], base: str = PALIGN) -> pd.DataFrame:
    """Pass@1 at the main budget by number of ``updates``: one row per number and arm that every such study has. Empty
    where there is one number only.

    ``value``, ``low``, ``high``; ``over``: the difference to the arm ``base`` at the same number, with ``over_low`` and
    ``over_high``, and ``clear`` (Holm over the arms of one number).
    """
    chosen = [studies[name] for name in CURVE if name in studies]
    if len(chosen) < 2:
        return pd.DataFrame()
    common = [arm for arm in chosen[0].arms if all(arm in study.arms for study in chosen)]
    return pd.concat([_against(study, common, base).assign(updates=updates(study)) for study in chosen]).reset_index()


def worlds(studies: Mapping[str, Study]) -> pd.DataFrame:
    """The same as :func:`curve` by ``world``: of each world the arms that it has in common with another one, in the
    first one's order.
    """
    chosen = {WORLDS[name]: studies[name] for name in WORLDS if name in studies}
    if len(chosen) < 2:
        return pd.DataFrame()
    order = dict.fromkeys(arm for study in chosen.values() for arm in study.arms)
    shared = [arm for arm in order if sum(arm in study.arms for study in chosen.values()) > 1]
    found = {name: [arm for arm in shared if arm in study.arms] for name, study in chosen.items()}
    return pd.concat([_against(chosen[name], arms).assign(world=name) for name, arms in found.items()]).reset_index()


def _against(study: Study, names: Sequence[str], base: str = PALIGN) -> pd.DataFrame:
    """Each arm's average Pass@1, and how far it lies above that of ``base``."""
    own = tables.averages(tables.accuracy(study)).loc[names, ["value", "low", "high"]]
    rows = []
    for arm in (arm for arm in names if arm != base and base in names):
        pair = study.outcomes.pair(arm, base, "pass@1", study.budgets[0])
        rows.append({"arm": arm} | tables.compared(*pair))
    if not rows:
        return own
    over = pd.DataFrame(tables.judged(rows)).set_index("arm")
    named = {"value": "over", "low": "over_low", "high": "over_high", "clear": "clear"}
    return own.join(over[list(named)].rename(columns=named))


def leads(studies: Mapping[str, Study]) -> pd.DataFrame:
    """Whether one of :data:`EXTENSIONS` may take P-ALIGN's lead: one row per such arm that was trained at every number
    of updates run so far, and a column per condition.

    At every number of updates it must lie clearly above P-ALIGN (``at every update budget``) and above the cheapest
    control, :data:`CHEAPEST` (``above the cheapest control``). And in the main study it must lie above that control and
    :data:`EQUAL` wherever these were allowed as many continuations as it draws, or more (``at equal generation``), in
    :data:`MANY` too where that has been run. ``None`` where they were never allowed as many. Above: the 95 % interval,
    of problems and training seeds, lies above 0.
    """
    rows = curve(studies)
    if rows.empty or MAIN not in studies:
        return pd.DataFrame()
    found = []
    for arm in (arm for arm in EXTENSIONS if arm in set(rows["arm"])):
        own = rows[rows["arm"] == arm]
        clear = bool(((own["clear"] == True) & (own["over"] > 0)).all())  # noqa: E712
        control = all(_above(study, arm, study, CHEAPEST) for name, study in studies.items() if name in CURVE)
        conditions = [clear, control, _at_equal_generation(studies, arm)]
        found.append([arm, *conditions, all(condition is True for condition in conditions)])
    columns = ["arm", "at every update budget", "above the cheapest control", "at equal generation", "leads"]
    return pd.DataFrame(found, columns=columns).set_index("arm") if found else pd.DataFrame()


def _at_equal_generation(studies: Mapping[str, Study], arm: str) -> bool | None:
    main, drawn = studies[MAIN], continuations(studies[MAIN], arm)
    allowed = [studies[name] for name in (MANY, MAIN) if name in studies]
    enough = [study for study in allowed if study.params.own_samples >= drawn]
    if not enough:
        return None
    # each of them: more continuations can make an arm worse
    return all(_above(main, arm, study, other) for study in enough for other in (EQUAL, CHEAPEST))


def continuations(study: Study, arm: str) -> float:
    """How many continuations a problem the arm's strategy draws on average."""
    table = pd.read_csv(study.folder / "tables" / "strategies.csv", index_col=0)
    drawn = table.get("continuations a problem", pd.Series(dtype=float)).get(ARMS[arm].strategy)
    return 1.0 if drawn is None or pd.isna(drawn) else float(drawn)


def _above(a: Study, arm: str, b: Study, other: str) -> bool:
    return bool(tables.compared(*_pair(a, arm, b, other))["low"] > 0)


def _pair(a: Study, arm: str, b: Study, other: str) -> tuple:
    """Pass@1 of two arms at the main budget, of two studies with the same test problems."""
    chosen = ((a, arm), (b, other))
    return aligned(*(study.outcomes.values(name, "pass@1", study.budgets[0]) for study, name in chosen))


def more_samples(studies: Mapping[str, Study]) -> pd.DataFrame:
    """Arms of :data:`MANY` minus the same arms of the main study, paired by test problem, Pass@1 at the main budget.

    One row per arm that both have and that draws several continuations: ``value``, ``low``, ``high``, ``clear`` (Holm).
    """
    main, many = studies.get(MAIN), studies.get(MANY)
    if main is None or many is None:
        return pd.DataFrame()
    common = [arm for arm in many.arms if arm in main.arms and ARMS[arm].strategy in ("own-k", "adaptive-k")]
    return pd.DataFrame(tables.judged([{"arm": arm} | tables.compared(*_pair(many, arm, main, arm)) for arm in common]))


def kept(studies: Mapping[str, Study], file: str) -> pd.DataFrame:
    """One table of all the studies' report folders, by ``world``; empty where none has it."""
    found = {}
    for name, study in studies.items():
        path = study.folder / "tables" / f"{file}.csv"
        if path.is_file():
            found[WORLDS.get(name, name)] = pd.read_csv(path)
    return (
        pd.concat(found, names=["world", None]).reset_index(level=0).reset_index(drop=True) if found else pd.DataFrame()
    )


POLICIES = {
    "fixed-30": ("fixed share", "30%"),
    "fixed-50": ("fixed share", "50%"),
    "empty": ("fixed share", "0%"),
    "adaptive-k": ("several samples", "4 of 30%"),
    "backoff": ("back-off", "from 10%"),
    "success-binary": ("verified search", "4 continuations, 50% right"),
}
"""Strategies of the main study, and the policy that is nearest to each on recorded rollouts (its ``family`` and name in
the table of policies that ``palign rollouts`` keeps).
"""
STRATEGIES = {
    "fixed-30": "the first 30 % of the trace",
    "fixed-50": "the first 50 % of the trace",
    "empty": "no prefix",
    "adaptive-k": "adaptive, up to K continuations",
    "backoff": "longer after each wrong continuation",
    "success-binary": "searched by success",
}
"""What a reader reads for each of :data:`POLICIES`."""


def policies(study: Study, recorded: Path) -> pd.DataFrame:
    """What strategies keep and draw here, and what the nearest policy would on real success curves; a row per strategy.

    ``kept``: the share of problems with a right pair; ``continuations`` a problem; and for the policy the same on
    ``right`` and on ``wrong`` recorded traces. ``recorded``: the folder of that report. Empty where it has no table.
    """
    path = recorded / "tables" / "policies.csv"
    if not path.is_file():
        return pd.DataFrame()
    real = pd.read_csv(path).set_index(["family", "policy", "right", "measure"])["value"]
    own = pd.read_csv(study.folder / "tables" / "strategies.csv", index_col=0)
    rows = {}
    for strategy, policy in POLICIES.items():
        if strategy in own.index:
            row = own.loc[strategy]
            several, drawn = row.get("problems with a kept pair"), row.get("continuations a problem")
            found = {"kept": row["retention"] if pd.isna(several) else several}
            found |= {"continuations": 1.0 if pd.isna(drawn) else drawn, "policy": ", ".join(policy)}
            for kind, right in (("right", True), ("wrong", False)):
                found[f"kept, {kind} traces"] = real[(*policy, right, "retention")]
                found[f"continuations, {kind} traces"] = real[(*policy, right, "continuations")]
            rows[strategy] = found
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("strategy")


# For a reader


def points(rows: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Estimates of a table as ``value [low, high]``, in percent or points: one column for each of ``columns``, from the
    beginning of the estimate's names (``value`` where it is empty) to what a reader reads. Points have their sign.
    """
    found = {}
    for name, title in columns.items():
        ends = (name, f"{name}_low", f"{name}_high") if name else ("value", "low", "high")
        number = "{:+.1f}" if "points" in title else "{:.1f}"
        found[title] = [cell(*one, number) for one in (100 * rows[list(ends)]).itertuples(index=False)]
    return pd.DataFrame(found, index=rows.index)


def arms_shown(table: pd.DataFrame) -> Table:
    """:func:`arms` for a reader: percent and points with intervals, tokens in thousands."""
    names = [name for name in table if name.startswith(("pass@", "over")) and not name.endswith(("_low", "_high"))]
    text = points(table, {name: _title(name) for name in names})
    spans = {name: name.partition(" in ")[::2] for name in names}  # a second budget's columns stand together
    titles = {name: (f"in {n}", _title(of)) if n else (_title(of), "") for name, (of, n) in spans.items()}
    text.columns = pd.MultiIndex.from_tuples(list(titles.values()))
    if "clear" in table:
        text["clear", ""] = _yes(table["clear"])
    tokens = {"judged": "to find prefixes", "continued": "to complete them", "trained": "in training"}
    for name, title in tokens.items():
        text["student's tokens, thousands", title] = (table[name] / 1000).round().astype(int)
    text["tokens per response", ""] = table["response"].round().astype(int)
    return display.table(text, best=[title for name, title in titles.items() if name.startswith("pass@")])


def leaders(table: pd.DataFrame) -> Table:
    """The first rows of :func:`arms` and those of :data:`BESIDE`, and what each arm is trained on."""
    rows = table[[i < MOST or arm in BESIDE for i, arm in enumerate(table.index)]]
    names = [name for name in ("pass@1", "pass@3", f"over {PALIGN}") if name in table]
    text = points(rows, {name: _title(name) for name in names})
    text["trained on"] = [views.trained_on(arm) for arm in rows.index]
    return display.table(text, best=[_title(name) for name in names if name.startswith("pass@")])


def defined(table: pd.DataFrame) -> Table:
    """What each arm of :func:`arms` is trained on."""
    return display.table(pd.DataFrame({"trained on": map(views.trained_on, table.index)}, table.index))


def tries(study: Study) -> str:
    """How many continuations an arm may draw per problem: what K and k are in the arms' descriptions."""
    params = study.params
    return (
        f"K is the number of continuations that an arm may draw per problem: {params.own_samples} (`own_samples`); "
        f"back-off may draw {params.backoff_tries} (`backoff_tries`). Where an arm's prefix is found by success, K "
        f"continuations of each prefix are drawn and k of them must be right: {params.success_needed} of "
        f"{params.success_samples} (`success_needed`, `success_samples`)."
    )


def samples(study: Study) -> str:
    """What an accuracy averages over, for captions."""
    params = study.params
    problems = sum(benchmark.problems for benchmark in params.benchmarks)
    return (
        f"n = {problems:,} test problems in {len(params.benchmarks)} benchmarks, {params.n_samples} responses each of "
        f"{len(params.training_seeds)} training seeds"
    )


def _title(name: str) -> str:
    return f"minus {PALIGN}, points" if name.startswith("over") else f"{name.capitalize()}, %"


def _yes(clear: pd.Series) -> pd.Series:
    return clear.map({True: "yes", False: "no"}).fillna("")


def finding(table: pd.DataFrame) -> str:
    """Which arms of :func:`arms` lie clearly above P-ALIGN and by how much, and how many below, in sentences."""
    if PALIGN not in table.index:
        return "This study has no P-ALIGN to compare with."
    own = points(table.loc[[PALIGN]], {"pass@1": "text"})["text"].iloc[0]
    text = points(table, {f"over {PALIGN}": "points"})["points"]
    clear = table["clear"] == True  # noqa: E712  P-ALIGN itself has no value
    above = [f"{arm} ({text[arm]})" for arm in table.index[clear & (table[f"over {PALIGN}"] > 0)]]
    below = int((clear & (table[f"over {PALIGN}"] < 0)).sum())
    more = f" and {len(above) - MOST} others" if len(above) > MOST else ""
    found = f"Clearly above it, in points: {', '.join(above[:MOST])}{more}" if above else "No arm lies clearly above it"
    own = own.replace(" ", "\N{NO-BREAK SPACE}% ", 1)
    least = f"clearly below it: {below} of the {len(table) - 1} other arms"
    return f"P-ALIGN's Pass@1, the share of right responses, is {own}. {found}; {least}."


def questions_shown(rows: pd.DataFrame) -> Table:
    """:func:`questions` for a reader."""
    text = rows[["question", "arm", "other"]].rename(columns={"other": "minus"})
    text = text.join(points(rows, {"": "Pass@1, points"})).assign(clear=_yes(rows["clear"]))
    return display.table(text.set_index("question"))


def more_shown(rows: pd.DataFrame) -> Table:
    """:func:`more_samples` for a reader."""
    if rows.empty:
        return display.table(rows)
    text = points(rows, {"": "K = 16 minus K = 4, points of Pass@1"}).assign(clear=_yes(rows["clear"]))
    return display.table(text.set_index(rows["arm"]))


def by(rows: pd.DataFrame, column: str, estimate: str, title: str) -> Table:
    """:func:`curve` or :func:`worlds` for a reader: one row per arm, one column for each value of ``column``, below the
    common ``title``.

    ``estimate``: the beginning of its names, see :func:`points`.
    """
    rows = rows.dropna(subset=estimate or "value") if len(rows) else rows  # P-ALIGN has no difference to itself
    if rows.empty:
        return display.table(rows)
    text = rows[["arm", column]].assign(text=points(rows, {estimate: title})[title])
    order = list(dict.fromkeys(text["arm"])), list(dict.fromkeys(text[column]))
    wide = text.pivot(index="arm", columns=column, values="text").reindex(index=order[0], columns=order[1])
    wide.columns = pd.MultiIndex.from_product([[title], map(str, wide.columns)])
    return display.table(wide, best=() if estimate else list(wide))


def taught_shown(rows: pd.DataFrame) -> Table:
    """How often each arm's rows state a step with a half-known key, for a reader; ``rows`` of :func:`kept`."""
    if rows.empty:
        return display.table(rows)
    spans = {
        "problems": ("problems", "of the rows"),
        "hard_problems": ("problems", "with such a key"),
        "taught_problems": ("problems", "stated rightly in a row"),
        "right_steps": ("steps with such a key", "right"),
        "wrong_steps": ("steps with such a key", "wrong"),
        "cells": ("pairs of key and number", "right ones, distinct"),
    }
    text = rows.drop(columns="world").set_index("arm")
    text.columns = pd.MultiIndex.from_tuples([spans.get(name, (name.replace("_", " "), "")) for name in text])
    return display.table(text)


def policies_shown(rows: pd.DataFrame) -> Table:
    """:func:`policies` for a reader: shares in percent."""
    if rows.empty:
        return display.table(rows)
    kept, drawn = "right pair, %", "continuations"
    found = {
        ("in the main study", kept): 100 * rows["kept"],
        ("in the main study", drawn): rows["continuations"].map("{:.1f}".format),
        ("nearest policy on recorded rollouts", ""): rows["policy"].str.replace("%", "\N{NO-BREAK SPACE}%"),
    }
    for kind in ("right", "wrong"):
        found[f"that policy on {kind} traces", kept] = 100 * rows[f"kept, {kind} traces"]
        found[f"that policy on {kind} traces", drawn] = rows[f"continuations, {kind} traces"].map("{:.1f}".format)
    return display.table(pd.DataFrame(found), labels=STRATEGIES | {"strategy": "prefix"})


def leads_shown(table: pd.DataFrame) -> Table:
    """:func:`leads` for a reader."""
    if table.empty:
        return display.table(table)
    titles = {
        "at every update budget": ("at every number of updates", "clearly above P-ALIGN"),
        "above the cheapest control": ("at every number of updates", f"above {CHEAPEST}"),
        "at equal generation": ("with as many continuations", f"above {EQUAL} and {CHEAPEST}"),
        "leads": ("takes the lead", ""),
    }
    text = table.astype(object).where(table.notna(), "not tested")
    text.columns = pd.MultiIndex.from_tuples([titles[name] for name in table])
    return display.table(text)


def verdict(table: pd.DataFrame, rows: pd.DataFrame) -> str:
    """What :func:`leads` says, in a sentence; ``rows`` of :func:`curve`, which say how much of it has been run."""
    if table.empty:
        return "The curve over updates has not been run, so no arm can take the lead."
    found, run = list(table.index[table["leads"]]), sorted(rows["updates"].unique())
    if len(run) < len(CURVE):
        so_far = " and ".join(found) or "none"
        return (
            f"{len(run)} of {len(CURVE)} numbers of updates have been run ({', '.join(map(str, run))}), so no arm "
            f"takes the lead yet; so far all conditions hold for {so_far}."
        )
    if not found:
        return (
            f"No extension takes the lead: none lies clearly above P-ALIGN and above the cheapest control, {CONTROL}, "
            "at every number of updates, and above both where they may draw as many continuations per problem."
        )
    return (
        f"{' and '.join(found)} {'takes' if len(found) == 1 else 'take'} the lead: clearly above P-ALIGN and above the "
        f"cheapest control, {CONTROL}, at every number of updates from {run[0]} to {run[-1]}, and above both where "
        "they may draw as many continuations per problem."
    )


def as_good(beside: pd.DataFrame, leads: pd.DataFrame) -> str:
    """Which arms of :func:`curve` the interval of the difference does not put below :data:`LEADER` at some number of
    updates, in a sentence; those that lead themselves are left out. Empty where there are none, or it does not lead.
    """
    if leads.empty or not leads["leads"].get(LEADER, False):
        return ""
    rows = beside[beside["over_high"] >= 0]  # the rule for the lead, before Holm
    found = rows[~rows["arm"].isin(leads.index[leads["leads"]])].groupby("arm", sort=False).size()
    numbers = beside["updates"].nunique()
    named = [f"{arm} (at {count} of {numbers} numbers of updates)" for arm, count in found.items()]
    return f"Not below {LEADER} by the interval of the difference: {', '.join(named)}." if named else ""
