"""The report reads a finished study: ``results`` loads it, tables compute, texts and figures show, ``write`` keeps.

``beside`` and ``ledger`` compare with the paper, ``compare`` compares two studies, ``page`` makes the HTML page.
It may use everything but ``pocket`` and ``study``.
"""
