"""Integer arithmetic of the Horizon / D-Robotics BPU, bit for bit, and Program, its portable model file."""
