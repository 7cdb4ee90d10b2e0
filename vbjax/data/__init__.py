"""What models are fitted to: sequences, documents, readers of files, and data sets."""
