"""Small models of the textbooks, each a page that shows one thing."""
