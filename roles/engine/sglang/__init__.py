"""SGLang: its memory, its options, its installation and start. Pure code only."""
