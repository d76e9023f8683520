"""Artefacts -> measured latency and accuracy."""
