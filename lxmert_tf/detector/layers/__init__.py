"""Layers of the detector, primitive to whole; feature maps are [B, H, W, C], regions [R, ...]."""
