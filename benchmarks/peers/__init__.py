"""The same job by what a user would pick instead. Each module is a program of its own, written as
its tool's documentation would; what is measured about them is in `benchmarks.comparison`.
"""
