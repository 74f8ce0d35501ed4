"""Ranks: processes that run one graph together, each with its plan.

identity.py says which rank this process is, meet.py and links.py connect the processes, group.py
and peer.py watch over them, transport.py moves bytes between them, collectives.py makes meetings
of that, meetings.py those of a plan, and agree.py compares what ranks run.
"""
