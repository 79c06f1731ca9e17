"""Each module works with the real thing: SQL on PostgreSQL, HTTP with the simulator, `mohe` itself.

Needs a PostgreSQL, embedded or Debian's (`-m sql --postgres 15`), and loopback.
"""
