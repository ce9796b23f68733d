"""Examples: programs that fit on a screen, each with a test."""
