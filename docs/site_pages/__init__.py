"""Pages of the site that are made from the code, and what Sphinx needs to make them."""
