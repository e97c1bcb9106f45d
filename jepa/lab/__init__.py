"""The laboratory: running notebooks, their source, the ledger, comparison, figures' style, paths.

Nothing outside this package imports it. Its modules are reached by name, so that importing one costs only that one.
"""
