"""The daemon: the single owner of all state, and what wires it to the journal, the pools, the gateway and its clients."""
