"""The memory of GGUF files in engines that run llama.cpp, and its split over cards. Pure code."""
