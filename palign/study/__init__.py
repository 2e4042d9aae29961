"""The command line and what it runs: a study notebook by notebook (``run``), the paper's audit, the set-up on Colab.

It may use everything but ``pocket``, and nothing imports it; a notebook's first cell uses ``colab``.
"""
