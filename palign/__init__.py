"""P-ALIGN (Liu et al., ACL 2026) as a reproducible study: see the README, ``notebooks/`` and ``params/``."""

__version__ = "0.1.0"
