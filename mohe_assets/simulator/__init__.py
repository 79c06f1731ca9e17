"""Both APIs as one small web app, for the demo and the tests; it shares no code with the clients
that talk to it.
"""
