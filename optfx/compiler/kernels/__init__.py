"""The middle third of the compiler: what happens to one leaf, as a program, and programs as compiled kernels."""
