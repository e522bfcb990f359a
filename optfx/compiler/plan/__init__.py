"""The last third of the compiler: which leaves share a kernel, where everything lies, and how a step is carried out."""
