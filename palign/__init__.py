"""P-ALIGN (Liu et al., ACL 2026) as a reproducible study: see the README, ``notebooks/`` and ``params/``.

>>> study = palign.open("params/pocket.yaml")
>>> study.pairs()["kept"].mean()
0.746875
"""


def open(path):
    """The study that a params file describes, from any folder: a :class:`palign.report.door.Study`. It runs nothing.

    ``path``: absolute, or from the working directory or the project's root. ``study.responses()``, ``.prefixes()``,
    ``.pairs()`` and ``.accuracy()`` are DataFrames, ``study.problem(name)`` shows one problem; ``help(study)`` says
    more. Raises :class:`palign.params.ParamsError` for a file that is not valid.
    """
    from pathlib import Path

    from .params import load, resolve
    from .report.door import Study

    return Study(load(path if Path(path).exists() else resolve(str(path))))
