"""What hardware can do, and what work costs there."""
