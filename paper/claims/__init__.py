"""The ledger of claims: what papers and notes say, how it is tested here, and what came out; every number read from the records."""
