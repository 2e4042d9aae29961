"""The command line and what it runs: a study notebook by notebook (``run``), notebooks that need no study (``single``:
the paper's audit, recorded rollouts), the set-up on Colab.

It may use everything but ``pocket``, and nothing imports it; a notebook's first cell uses ``colab``.
"""
