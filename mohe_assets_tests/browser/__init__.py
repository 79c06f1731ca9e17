"""A person sees in a browser what the tables contain, and a foreign page can do nothing.

Needs the extra `browser` and Debian's Chromium; runs with `-m browser` only.
"""
