"""The native programs that execute artefacts on a device: how they are built, found and called."""
