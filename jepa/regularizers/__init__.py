"""Criteria 1 and 2: keep representations informative. One criterion a module, terms unweighted, imported by name."""
