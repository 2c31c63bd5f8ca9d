"""Readers of what GPU tools print: one module a kind, text in, typed objects out, no host touched.

Every reader raises `OutputError`, and nothing else, for text that is not its kind of output.
"""
