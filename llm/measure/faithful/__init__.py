"""Whether answers follow from the chains before them: the tests, who is tested, and a directory of measurements."""
