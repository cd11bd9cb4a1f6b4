"""Benchmarks: whole training steps of chainrule beside those of other frameworks (`python -m benchmarks --help`)."""
