"""Keeps the story of the work: reads the graph, and writes words. It has no way to change anything."""
