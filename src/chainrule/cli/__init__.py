"""The command ``chainrule``: train, evaluate and use networks without writing a program.

`main` parses the command line; every command has a module of its own.
"""
