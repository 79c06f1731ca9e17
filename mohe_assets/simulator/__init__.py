"""Both APIs as a small web app for the demo and the tests; shares no code with the clients."""
