"""Run a program where it sees and reaches only what it is given: namespaces, a private root, seccomp, cgroups. Useful alone.

python -m sandbox run -- CMD
"""
