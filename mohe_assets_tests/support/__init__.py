"""Shared code of tests and benchmarks: databases, processes, servers, readers. No tests."""
