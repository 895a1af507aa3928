"""A durable, sandboxed task supervisor for coding agents on Linux.

A primary agent delegates tasks over MCP; one daemon keeps them as a priority DAG behind a write-ahead log and runs each on a
confined worker. Packages, from the pure core to the edges (imports point downwards only):

    cli, mcp_bridge, daemon                 who wires, and who talks to people
    rpc, gateway, workers, spool, observe   the imperative shell: all I/O
    journal                                 bytes on disk
    wire                                    frames and messages, sans-IO
    core                                    model, graph, scheduler: no I/O, no clock, no randomness
    config, errors, paths                   what every layer may use
"""

__version__ = "0.1.0"
