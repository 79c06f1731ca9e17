"""Dagster shows the checkpoints as they are and launches what is due, and nothing twice.

Needs a PostgreSQL with Dagster's tables, the simulator, and for some tests a whole `mohe up`.
"""
