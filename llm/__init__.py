"""The language-model laboratory: the same measurements on real training runs."""
