"""What experiments show: numbers, tables, figures."""
