"""Nothing is lost, repeated or left behind when a collection is interrupted in any way.

Needs a PostgreSQL, the simulator, and collections in separate processes, which are killed.
"""
