"""Checkpoint -> artefacts, verdicts and a manifest."""
