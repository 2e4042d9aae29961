"""A progress bar moves where a person watches, is read by the runner, and leaves one line in a saved notebook."""

import io
import os
import re

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from palign.study import kernels, showing
from palign.tasks import progress

LOOP = """\
import time
from palign.tasks import progress
progress.SECONDS = 0.1
with progress.progress("truncation/adaptive", 5) as bar:
    time.sleep(0.5)
    for _ in range(5):
        time.sleep(0.05)
        bar.update()
"""


@pytest.fixture
def executed(tmp_path):
    """The bar's loop as the runner executes it: what stands in the executed copy, and what the runner heard."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LOOP)])
    nbformat.write(notebook, tmp_path / "loop.ipynb")
    heard = io.StringIO()
    kernels.execute(tmp_path / "loop.ipynb", tmp_path / "executed.ipynb", {}, heard)
    return nbformat.read(tmp_path / "executed.ipynb", 4).cells[-1].outputs, heard.getvalue()


def test_the_runner_hears_each_state_and_the_executed_copy_keeps_the_last(executed):
    """A study of hours stored a thousand states; tqdm's widget said nothing to the runner and was saved at 0 %."""
    outputs, heard = executed
    assert heard.count("| 0/5 [") > 2, "while nothing is finished the bar is drawn again"
    assert "100%|##########| 5/5" in heard
    (output,) = outputs
    assert output.name == "stderr" and len(output.text.strip().splitlines()) == 1 and "| 5/5 [" in output.text


def test_a_log_does_not_repeat_a_bar_that_waits(executed, capsys):
    lines = showing.Lines("02_truncation", every=0)
    lines.write(executed[1])
    said = capsys.readouterr().err.splitlines()
    words = [line.split(", 00:")[0] for line in said]
    assert words[0].endswith("truncation/adaptive: 0 %, 0 of 5") and words[-1].endswith("100 %, 5 of 5")
    assert len(words) == len(set(words))


def test_a_person_sees_one_output_that_moves_and_is_saved_full(project):
    """A saved widget shows 0 % for ever."""
    manager, client = start_new_kernel(kernel_name="python3", env=os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"})
    shown = []
    try:
        client.execute_interactive(LOOP, allow_stdin=True, output_hook=shown.append, timeout=60)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    kinds = [message["msg_type"] for message in shown if message["msg_type"] != "status"]
    assert kinds.count("display_data") == 1 and kinds.count("update_display_data") > 3 and "stream" not in kinds
    states = [m["content"]["data"]["text/html"] for m in shown if "display_data" in m["msg_type"]]
    values = [int(re.search(r'value="(\d+)"', state)[1]) for state in states]
    assert values == sorted(values) and (values[0], values[-1]) == (0, 5)
    assert "truncation/adaptive: 5 of 5" in states[-1] and 'max="5"' in states[-1]


def test_a_total_that_grows_and_words_at_the_end_are_shown(capsys):
    with progress.progress("back-off", 0) as bar:
        bar.total += 2
        bar.update(2)
        bar.set_postfix(loss="0.5")
    assert "2/2" in capsys.readouterr().err
