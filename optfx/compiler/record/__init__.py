"""What an optimizer asks for: a step run once on leaves without values, and written down."""
