"""Tasks: problems in three disjoint splits, and a verifier."""
