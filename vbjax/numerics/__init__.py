"""Arrays: small matrices in batches, special functions, records, reading what users give."""
