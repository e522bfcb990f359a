"""What happens to one leaf, as a program, and programs as compiled kernels."""
