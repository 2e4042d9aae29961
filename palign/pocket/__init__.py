"""The pocket world: artificial problems, their teacher and a tiny student, so that a whole study runs on a laptop.

The files here make the data and the student that ship with the package; they may use anything below ``report``.
"""
