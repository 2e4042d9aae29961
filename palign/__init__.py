"""P-ALIGN (Liu et al., ACL 2026) as a reproducible study: see the README, ``notebooks/`` and ``params/``.

>>> study = palign.open("params/pocket.yaml")
>>> study.pairs()["kept"].mean()
0.746875
"""


def open(path):
    """The results of the study that a params file describes: a :class:`palign.report.results.Results`.

    Raises :class:`palign.params.ParamsError` for a file that is not valid. It runs nothing.
    """
    from .params import load
    from .report.results import Results

    return Results(load(path))
