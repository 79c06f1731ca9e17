"""The image and the projects of docker-compose work as real containers.

Needs a container engine; runs with `-m containers` only.
"""
