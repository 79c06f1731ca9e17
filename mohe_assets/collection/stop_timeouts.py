"""Time-outs of a graceful stop, in seconds.

A run has to end before the process that waits for it kills it, and so on outwards:

    run < `mohe up` < `docker stop`,  run < demo,  3 runs ≤ code server < container
"""

# Searches in flight finish in this time, retries of their database included.
RUN_STOP_SECONDS = 6.0
# `mohe up`: first the daemon and the web server, then the code server with its runs.
UP_OTHERS_SECONDS = 1.5
UP_STOP_SECONDS = 9.0
DOCKER_STOP_SECONDS = 10.0  # default of `docker stop`
DEMO_STOP_SECONDS = 15.0
# Code server in a container: first the runs that have not begun are cancelled, then the others are
# signalled. A machine under load gets three times the time of a run.
CODE_SERVER_CANCEL_SECONDS = 1.5
CODE_SERVER_STOP_SECONDS = 3 * RUN_STOP_SECONDS
CONTAINER_STOP_SECONDS = 20.0  # stop_grace_period, terminationGracePeriodSeconds
