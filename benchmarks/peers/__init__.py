"""Agent Party beside its peers: the same task, the same payload, the same durability, in one run.

``make bench-peers``. One file for each contestant; `race` has them take turns, each in a process of its own.
"""
