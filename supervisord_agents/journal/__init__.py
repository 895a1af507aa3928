"""The write-ahead log: opaque byte records in, durable. docs/journal.md describes the format."""
