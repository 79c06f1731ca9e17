"""Tests in folders by what they need; docs/testing.md says what each folder proves."""
