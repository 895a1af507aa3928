"""The MCP stdio bridge: what a coding agent starts to reach the supervisor."""
