"""llama.cpp: llama-server's memory, its distribution over cards, and its options. Pure code."""
