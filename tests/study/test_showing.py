"""What a run shows: lines that do not wrap, a table that fits, the headline."""

import time

from rich.console import Console

from palign.study import showing
from tests.conftest import PROJECT

BAR = "aligning with a long title:  62%|######2   | 25/40 [00:12<00:08,  1.9it/s]"


def test_progress_lines_do_not_wrap_and_a_full_bar_is_said_once(capsys):
    """tqdm draws its bar as wide as the terminal and twice at its end; the title came before it."""
    lines = showing.Lines("05_evaluation p-align seed 1", every=0)
    full = BAR.replace(" 62%", "100%").replace("25/40", "40/40").replace("00:08", "00:00")
    lines.write(f"\r{BAR}\r{full}\r{full}\n")
    assert capsys.readouterr().err.splitlines() == [
        "  05_evaluation p-align seed 1 | aligning with a long title: 62 %, 25 of 40, 00:08 left",
        "  05_evaluation p-align seed 1 | aligning with a long title: 100 %, 40 of 40",
    ]
    slow = showing.Lines("01_generation", every=10)
    slow.write(f"{BAR}\rno bar\r{BAR}\r{full}")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_log_has_a_line_when_a_notebook_begins_and_ends(capsys):
    shown = showing.shown(["01_generation", "06_report"])  # there is no terminal here
    with shown, shown.running("01_generation"):
        pass
    out = capsys.readouterr().out
    assert out.splitlines() == ["01_generation ...", "01_generation: done in 0 s"] and "\x1b" not in out


def test_the_table_fits_80_columns_and_the_screen(monkeypatch):
    """Twenty arms of several seeds on 24 lines: what runs is seen, and a hostile title stays text."""
    monkeypatch.setenv("TERM", "xterm")
    arms = [f"sft-a-rather-long-name-{number:02} seed {seed}" for number in range(20) for seed in (0, 1)]
    titles = ["01_generation", *(f"05_evaluation {arm}" for arm in arms), "06_report [red]"]
    table = showing.Table(titles, before=titles[:1], jobs=2)
    table.console = Console(width=80, height=24, markup=False, highlight=False, emoji=False, force_terminal=False)
    now = time.monotonic()
    for title in titles[1:9]:
        table.rows[title].state, table.rows[title].seconds = "done", 20.0
    for title in titles[9:11]:
        row = table.rows[title]
        row.state, row.began = "running", now
        table.lines(row).write(BAR)
    with table.console.capture() as capture:
        table.console.print(table._table())
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert max(map(len, lines)) <= 80 and len(lines) <= 24
    assert sum("running 62 %  aligning with" in line for line in lines) == 2
    assert "9 of 42 notebooks done" in lines[-1] and "about 5:" in lines[-1]
    table.final = True
    with table.console.capture() as capture:
        table.console.print(table._table())
    shown = capture.get()
    assert sum("done in 20 s" in line for line in shown.splitlines()) == 8 and "[red]" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_headline_is_the_average_at_the_main_budget(tmp_path):
    lines = showing.headline(PROJECT / "reports" / "pocket" / "tables" / "accuracy.csv")
    assert lines[0] == "Pass@1 in percent, average over benchmarks, 256 tokens, 95 % interval"
    assert lines[1].split()[:2] == ["zero-shot", "38.9"]
    assert showing.headline(tmp_path / "accuracy.csv") == []
    one = tmp_path / "one.csv"
    one.write_text("arm,benchmark,metric,budget,value,low,high\na,aime,pass@1,64,0.5,0.25,0.75\n")
    assert showing.headline(one)[1:] == ["  a     50.0  [25.0, 75.0]"]
