"""What every backend promises, checked from outside: the messages that it answers, and nothing of
its code. ``suite`` holds the list; ``cli.py backends check NAME --full`` runs it.
"""
