"""Ways to order commands and give them streams; the stage `schedule` picks the best.

Each module has one function `candidate(tasks, streams) -> Assignment`.
"""
