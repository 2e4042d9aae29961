"""The embedded world: problems, a teacher and a small student, so that the whole study runs anywhere."""
