"""Models of hardware: what it supports, costs, the simulator and its lower bounds."""
