"""Candidates: orders of commands with streams. The stage `schedule` picks the best.

Each module has one function `candidate(tasks, streams) -> Assignment`.
"""

ONE_STREAM = "one stream"
"""The name of the candidate with everything on one stream."""
