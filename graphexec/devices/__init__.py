"""What runs plans: the CPU, and GPUs through hip-python."""
