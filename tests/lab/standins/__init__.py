"""What the lab's stand-in packages contain: programs with the names and words of the real ones."""
