"""Serving: SavedModels for TensorFlow Serving, what the server needs beside them, and clients."""
