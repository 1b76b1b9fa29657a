"""Numerical tools that several topics of the theory share: checked input, flows of thousands at once, quadrature on a line."""
