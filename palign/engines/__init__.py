"""Engines run language models, with transformers, vLLM or a service, behind the interface of ``base.Engine``.

``opening.py`` opens the engine of a model. Files here may use ``tasks``, ``params``, ``prompts`` and ``arms``.
"""
