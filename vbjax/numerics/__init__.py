"""Array utilities: batches of small matrices, special functions, records, and checks of users' input."""
