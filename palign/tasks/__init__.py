"""Tasks: ``store`` writes records and manifests into a run folder, ``plan`` says which task needs which others.

A task is one result of a study, in a folder named after its key. It may use ``params``, ``prompts`` and ``arms``.
"""
