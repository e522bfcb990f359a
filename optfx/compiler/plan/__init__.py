"""Which leaves share a kernel, where everything lies in memory, and how a step is carried out."""
