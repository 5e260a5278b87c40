"""Tiles: cut, normalised and stored once for each image size."""
