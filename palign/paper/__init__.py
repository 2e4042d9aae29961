"""The paper's printed numbers, what arithmetic says of them, a verdict on each claim, and the released outputs.

Uses ``analysis``, the method and what lies below them; does not depend on a study or its report.
"""
