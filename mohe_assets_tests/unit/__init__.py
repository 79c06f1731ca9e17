"""Pure rules, parsers and texts are right for each input.

Needs nothing but the package: no server, no socket but for a scripted one, no process.
"""
