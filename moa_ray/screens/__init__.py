"""Screens: data sets as checked field tables.

An image of a screen is found by its *location*: a path relative to the screen's root, or ``archive.zip!member`` for a
file inside a zip archive, which is read in place.
"""
