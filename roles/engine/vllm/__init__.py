"""vLLM: what it takes of memory, and which of its options a service may set. Pure code only."""
