"""Layers of the detector, primitive to whole; feature maps are [B, C, H, W], regions [R, ...]."""
