"""Ranks: processes that run one graph together, each with its plan.

identity.py says which rank this process is, links.py connects the processes, group.py watches over
them, transport.py moves bytes between them, collectives.py makes meetings of that, agree.py
compares what they run.
"""
