"""Frames and messages: what travels between processes. Sans-IO; docs/PROTOCOL.md is the specification."""
