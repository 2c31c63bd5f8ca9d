"""Ollama: its settings, its model's names, and the program that starts it. Pure code, but for
`serve.py`, which runs on hosts alone."""
