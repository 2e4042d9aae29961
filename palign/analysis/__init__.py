"""What the study measures beyond accuracy: statistics, token entropy, the judge's own quality, preferences and costs.

It may use the method, engines, tasks, params, prompts and arms; the report, the paper's audit and the study use it.
``style`` holds the look of all figures.
"""
