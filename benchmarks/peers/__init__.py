"""The same job with the tools a user would pick instead. Each module is a separate program, written
as its tool's documentation recommends; `benchmarks.comparison` measures them.
"""
