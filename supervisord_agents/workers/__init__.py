"""Workers: the pools that own them in the daemon, and the runtime and agents that run inside the sandbox."""
