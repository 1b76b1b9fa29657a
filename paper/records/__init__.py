"""What is recorded in ``paper/data``, how it is cut down and checked, and the tables and pictures made of it."""
