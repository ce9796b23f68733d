"""What one backend alone promises."""
