"""The files for containers, clusters and proxies are valid and start a platform that collects.

Needs docker-compose, hadolint and nginx (.ci/packages installs them), but no container engine.
"""
