"""Files beside the journal: results, logs, and what workers leave for the daemon."""
