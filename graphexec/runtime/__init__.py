"""Plan to results: executables, requests and devices."""
