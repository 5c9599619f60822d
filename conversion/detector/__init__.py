"""Checkpoints of the detector: its table of names, and the formats that only detectors have."""
