"""llama.cpp: what llama-server takes of memory, how it lies on cards, its options. Pure code."""
