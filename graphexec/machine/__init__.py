"""Models of hardware: capabilities, costs, the simulator and its lower bounds."""
