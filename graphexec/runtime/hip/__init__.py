"""The HIP device."""
