"""One notebook in one kernel, by papermill: what it says, how it fails and how it is stopped.

Imports papermill, which takes a second: only the functions that run a notebook import this module.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, TextIO

import papermill
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from ..params import root
from . import stopping

START = """
import atexit, gc, os, runpy
atexit.register(os._exit, 0)  # the first that is registered runs last
gc.set_threshold(10_000)
runpy.run_module("ipykernel_launcher", run_name="__main__")
"""
"""How a kernel starts. At its end, after all else that is registered for it, it leaves at once: to take down what torch
has made takes a second. Fewer collections of garbage save an eighth of the time of importing torch and transformers.
"""
_here = threading.local()
"""``group``: the process group of this thread's kernel."""


class Failed(RuntimeError):
    """A notebook that did not reach its end; the message says why."""


class Kernel(AsyncKernelManager):
    """A kernel that a stop reaches and that ends without noise.

    jupyter_client interrupts a kernel before it shuts it down. Here it is idle then, and now and then its loop answers
    "[IPKernelApp] ERROR | KeyboardInterrupt caught in kernel": so it is asked to shut down, not interrupted. What it
    writes past its notebook (a crash, an import that fails) is printed when it has ended, unless it was stopped.
    """

    _group: int | None = None
    _said: Any = None

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kwargs: Any) -> None:
        if "ipykernel_launcher" in kernel_cmd:
            at = kernel_cmd.index("ipykernel_launcher")
            kernel_cmd = [*kernel_cmd[: at - 1], "-c", START, *kernel_cmd[at + 1 :]]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115, since it lives as long as the kernel
        await super()._async_launch_kernel(kernel_cmd, **kwargs, stderr=self._said)
        self._group = getattr(self.provisioner, "pgid", None)
        if self._group:
            stopping.watch(self._group)
            _here.group = self._group

    async def _async_interrupt_kernel(self) -> None:
        if stopping.asked():  # its cell has ended, and all records with it
            await self._async_signal_kernel(signal.SIGKILL)

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        await super()._async_cleanup_resources(restart=restart)
        if self._group:
            stopping.unwatch(self._group)
            self._group = None
        if self._said:
            self._said.seek(0)
            said = self._said.read().decode("utf-8", "replace")
            self._said.close()
            self._said = None
            if said.strip() and not stopping.asked():
                print(said.rstrip(), file=sys.stderr, flush=True)

    cleanup_resources = _async_cleanup_resources  # type: ignore[assignment]
    interrupt_kernel = _async_interrupt_kernel  # type: ignore[assignment]


def execute(notebook: Path, executed: Path, values: dict, stderr: TextIO) -> None:
    """Execute a notebook with these parameters, keeping the executed copy. Raises :class:`Failed`."""
    if stopping.asked():  # while papermill was imported
        raise Failed("stopped")
    # papermill warns of each parameter a notebook's own cell does not show; the notebook's second cell is stricter.
    # Its errors are raised as well, and this thread hands them on.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # this environment's kernel before the user's own
    executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            notebook,
            executed,
            parameters=values,
            cwd=str(root()),
            progress_bar=False,
            stderr_file=stderr,
            coalesce_streams=True,  # the copy keeps a progress bar's last state, not hundreds of them
            kernel_name="python3",
            kernel_manager_class=Kernel,
            on_cell_start=_before_a_cell,
            # a kernel that only this machine reaches need not warn that its connection is not encrypted
            extra_arguments=["--IPKernelApp.log_level=40"],
        )
    except PapermillExecutionError as error:
        raise Failed(f"{error.ename}: {error.evalue}") from None
    except DeadKernelError:
        raise Failed("its kernel died, perhaps for lack of memory; run the study again to continue") from None


def _before_a_cell(**_: Any) -> None:
    """The signal may come between two cells, when there is nothing to interrupt."""
    if stopping.asked():
        raise Failed("stopped")
    stopping.watch(_here.group, at_work=True)
