"""The first third of the compiler: a step of an optimizer, run once on leaves without values and written down."""
