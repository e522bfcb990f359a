"""Steps whose size adapts to the gradients: each element, or each matrix, is divided by what it has seen."""
